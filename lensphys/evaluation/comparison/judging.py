"""How all methods of a comparison are judged: on the same images, by the same measures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lensphys.data.lens_file import LensFile
from lensphys.data.unusable import unusable
from lensphys.evaluation.comparison.figures import Lens, Panel
from lensphys.evaluation.cost import cost
from lensphys.evaluation.evaluate import Judging, Truth, Values, evaluate, first_of_each
from lensphys.evaluation.lens_of_image import theta_E_of
from lensphys.methods import READY, Method, Prediction
from lensphys.methods.ranking.niqe import NIQE

Row = dict[str, Any]

_BATCH = 8  # images at a time, for everybody


class Judge:
    """The test images, and what of them is measured.

    Args:
        test: the images and their truth.
        niqe: what natural images look like.
        limit: at most so many images of each class.
        device: where the methods compute.
    """

    def __init__(self, test: LensFile, niqe: NIQE, limit: int | None, device: str = "cpu") -> None:
        self.test, self.niqe, self.limit, self.device = test, niqe, limit, device
        labels = np.asarray(test.labels)
        asked = first_of_each(labels, limit)
        self.unusable = unusable(test, asked, *(["hr_clean"] if test.has("hr_clean") else []))
        rows = self._rows = asked[~np.isin(asked, list(self.unusable))]
        self.images = {name: int((labels[rows] == k).sum()) for k, name in enumerate(test.classes)} | {"all": len(rows)}
        self._shown = rows[first_of_each(labels[rows], 1)]
        self._theta_E = self._of_the_truth(rows) if test.has("hr_clean") else {}

    @property
    def identity(self) -> str:
        """Hash of the test images."""
        return self.test.identity

    def judged(self, method: Method, name: str) -> tuple[Row, dict[str, np.ndarray]]:
        """Return what a method reached (``results``), says of itself (``verdicts``) and costs, and some of its images.

        The images, ``image_0 ...`` (1, sH, sW), are of one lens of each class, ``psnr`` [dB] (n,) is theirs.
        """
        evaluation = evaluate(
            method,
            self.test,
            Judging(batch_size=_BATCH, rows=self._rows, measures=self._measures, device=self.device),
            name=name,
        )
        tree = evaluation.tree()
        found: Row = {"results": tree["results"]["method"], "verdicts": tree["verdicts"], "quality": evaluation.quality}
        observation = self.test.observation(self._rows[:_BATCH], self.device)
        found |= cost(method, observation, self.test.upscale)
        images = {f"image_{k}": sample.sr for k, sample in enumerate(evaluation.samples)}
        return found, images | {"psnr": np.array([sample.psnr for sample in evaluation.samples], dtype=np.float64)}

    def ceiling(self) -> Row:
        """Return what the truth itself would score."""
        bicubic = evaluate(
            READY["bicubic"],
            self.test,
            Judging(rows=self._rows, measures=self._of_truth, batch_size=_BATCH),
            name="bicubic",
        )
        results = bicubic.tree()["results"]
        niqe = {c: {"niqe": metrics["niqe"]} for c, metrics in results["method"].items()}
        return {c: metrics | niqe[c] for c, metrics in results["ceiling"].items()}

    def lenses(self, methods: Sequence[tuple[str, Path]]) -> list[Lens]:
        """Return one lens of each class, as all methods see it; none where there is no clean HR image.

        Args:
            methods: their names, and the files of their images.
        """
        if not self.test.has("hr_clean"):
            return []
        grid, found = self.test.grid_lr, []
        truths = self.test.sharp("hr_clean", self._shown).numpy()
        for k, row in enumerate(self._shown.tolist()):
            panels = []
            for name, file in methods:
                with np.load(file) as images:
                    panels.append(Panel(name, images[f"image_{k}"], float(images["psnr"][k])))
            found.append(
                Lens(
                    title=f"{self.test.classes[int(self.test.labels[row])]} #{row}",
                    field=(grid.width * grid.scale / 2, grid.height * grid.scale / 2),
                    lr=self.test.read("lr", row)[0].squeeze(),
                    truth=truths[k].squeeze(),
                    panels=panels,
                )
            )
        return found

    def _measures(self, prediction: Prediction, truth: Truth) -> Values:
        """NIQE, and how far off the Einstein radius is that the image itself shows, whatever the method knows of it."""
        found = {"niqe": self.niqe.score(prediction.image.double().cpu()).numpy()}
        if self._theta_E:
            true = torch.tensor([self._theta_E[row] for row in truth.index.tolist()])
            measured = theta_E_of(prediction.image, prediction.camera).double().cpu()
            found["theta_E_image"] = (measured / true - 1).abs().numpy()
        return found

    def _of_the_truth(self, rows: np.ndarray) -> dict[int, float]:
        """The Einstein radius that the clean HR image of each lens shows, substructure and all [arcsec]."""
        found: dict[int, float] = {}
        for batch in np.split(rows, range(_BATCH, len(rows), _BATCH)):
            camera = self.test.observation(batch).camera.at(self.test.upscale)
            clean = torch.from_numpy(self.test.read("hr_clean", batch).astype(np.float64))
            radii = theta_E_of(clean.reshape(-1, 1, *clean.shape[-2:]), camera).tolist()
            found |= dict(zip(batch.tolist(), radii, strict=True))
        return found

    def _of_truth(self, prediction: Prediction, truth: Truth) -> Values:
        clean = truth.hr_clean if truth.hr_clean is not None else torch.full_like(prediction.image, torch.nan)
        return {"niqe": self.niqe.score(clean.double().cpu()).numpy()}
