"""The planner: segments, module boundaries and grids of a sparse model from measurement."""

from .plan import Judged, Plan, plan_structure, planned_config

__all__ = ['Judged', 'Plan', 'plan_structure', 'planned_config']
