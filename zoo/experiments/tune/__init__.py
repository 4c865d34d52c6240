"""Tuning: trials of training settings, the best judged where it was not chosen.

What may be drawn (space), which held-out rows choose and which judge (rows), the study (study), its trials (trials), how long
they take (pace), one training (training), the judgement (judging), and all of it (run).
"""

from zoo.experiments.tune.run import results_folder, tune
from zoo.experiments.tune.space import Space, load_space
from zoo.experiments.tune.trials import TuneOptions

__all__ = ["Space", "TuneOptions", "load_space", "results_folder", "tune"]
