"""What every room stands on: errors in one sentence, strict settings, whole files, where results come from."""
