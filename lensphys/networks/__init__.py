"""Networks, one architecture a file; those of `NETWORKS` map (B, 1, H, W) to (B, C, scale H, scale W)."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny

from lensphys.basics.trust import check_trusted
from lensphys.networks.base import NetworkSettings
from lensphys.networks.deflection import DeflectionNetwork, PolarHeadSettings

# What a config calls a network, and where its settings are: to add one, add its file and its line.
NETWORKS = {
    "edsr": "lensphys.networks.edsr:EDSRSettings",
    "equivariant": "lensphys.networks.equivariant:EquivariantSettings",
    "fsrcnn": "lensphys.networks.fsrcnn:FSRCNNSettings",
    "hybrid": "lensphys.networks.hybrid:HybridSettings",
    "pyramid": "lensphys.networks.pyramid:PyramidSettings",
    "rcan": "lensphys.networks.rcan:RCANSettings",
    "rcan_compact": "lensphys.networks.rcan:CompactRCANSettings",
    "rdn": "lensphys.networks.rdn:RDNSettings",
    "residual": "lensphys.networks.residual:ResidualSettings",
    "rrdbnet": "lensphys.networks.rrdbnet:RRDBNetSettings",
    "srresnet": "lensphys.networks.srresnet:SRResNetSettings",
}


def network_settings(name: str) -> type[NetworkSettings]:
    """Return the settings of a network: an entry of `NETWORKS`, or your own, as ``module:Class``.

    Raises:
        ValueError: if there is no such network; settings are refused with this sentence.
    """
    module, _, attribute = NETWORKS.get(name, name).partition(":")
    if not attribute:
        raise ValueError(f"unknown network {name!r}, choose one of {', '.join(NETWORKS)}, or your own as module:Class")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever its own code raises
        raise ValueError(f"the network {name!r} cannot be imported ({error}): is its file on PYTHONPATH?") from None
    if not (isinstance(found, type) and issubclass(found, NetworkSettings)):
        raise ValueError(f"{name!r} is no network: it must be a sub-class of lensphys.networks.NetworkSettings")
    return found


def _settings_of(tree: Any) -> Any:
    """The settings that a tree with a ``name`` asks for."""
    if isinstance(tree, NetworkSettings):
        return tree
    if not isinstance(tree, dict) or not isinstance(tree.get("name"), str):
        raise ValueError(f"a network needs a 'name', one of {', '.join(NETWORKS)}")
    if tree["name"] not in NETWORKS and ":" in tree["name"]:
        check_trusted(tree["name"])
    return network_settings(tree["name"]).model_validate(tree)


Network = Annotated[SerializeAsAny[NetworkSettings], BeforeValidator(_settings_of)]

__all__ = [
    "NETWORKS",
    "DeflectionNetwork",
    "Network",
    "NetworkSettings",
    "PolarHeadSettings",
    "network_settings",
]
