"""What a person sees of a run: progress, the closing summary, the learning curve."""

from everlearn.report.curve import draw_learning_curve
from everlearn.report.evaluation import EvaluationRecord, print_evaluation
from everlearn.report.progress import Display, Progress, Silent, display_for
from everlearn.report.summary import Summary, print_summary, summary_from

__all__ = [
    "Display",
    "EvaluationRecord",
    "Progress",
    "Silent",
    "Summary",
    "display_for",
    "draw_learning_curve",
    "print_evaluation",
    "print_summary",
    "summary_from",
]
