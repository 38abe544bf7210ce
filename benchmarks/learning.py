"""How well agents learn: several seeds on small tasks, beside Stable-Baselines3's PPO."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from typing import Any

import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.measure import Announce
from benchmarks.plots import draw_curves, draw_scores, panels
from benchmarks.results import Report
from benchmarks.scores import Floats, binned_curve, bootstrap_interval, interquartile_mean
from benchmarks.tables import Table, interval
from everlearn.environments.evaluation import evaluate
from everlearn.ppo.algorithm import PPO, DistributionalPPO
from everlearn.report.wording import number
