"""Differentiable partial eigendecomposition in JAX; see `partial_eigh`."""

__version__ = "0.2.0"

from jax_peig import bounds as bounds
from jax_peig import operators as operators
from jax_peig import preconditioners as preconditioners
from jax_peig._api.crossing import Crossing as Crossing
from jax_peig._api.crossing import crossing as crossing
from jax_peig._api.eigenspace import eigenspace as eigenspace
from jax_peig._api.eigh import partial_eigh as partial_eigh
from jax_peig._api.matrix_function import hermitian_function as hermitian_function
from jax_peig._api.minres import MinresInfo as MinresInfo
from jax_peig._api.minres import MinresStatus as MinresStatus
from jax_peig._api.minres import minres as minres
from jax_peig._api.report import CallReport as CallReport
from jax_peig._api.report import DerivativeReport as DerivativeReport
from jax_peig._api.report import derivative_report as derivative_report
from jax_peig._api.spectral import density as density
from jax_peig._api.spectral import projector_apply as projector_apply
from jax_peig._api.spectral import spectral_apply as spectral_apply
from jax_peig._api.spectral import spectral_sum as spectral_sum
from jax_peig._core.options import Derivative as Derivative
from jax_peig._core.results import Eigenspace as Eigenspace
from jax_peig._core.results import Info as Info
from jax_peig._core.results import PartialEigh as PartialEigh
from jax_peig._core.results import PartialEighError as PartialEighError
from jax_peig._core.results import PartialSVD as PartialSVD
from jax_peig._core.results import SingularSpace as SingularSpace
from jax_peig._core.status import Status as Status
from jax_peig._derivatives.well_posed import project_gauge as project_gauge
from jax_peig._eigensolvers.chebyshev import Chebyshev as Chebyshev
from jax_peig._eigensolvers.davidson import Davidson as Davidson
from jax_peig._eigensolvers.dense import Dense as Dense
from jax_peig._eigensolvers.lobpcg import LOBPCG as LOBPCG
from jax_peig._eigensolvers.shift_invert import ShiftInvert as ShiftInvert
from jax_peig._operators.given import BlockProduct as BlockProduct
from jax_peig._singular.functions import singular_apply as singular_apply
from jax_peig._singular.functions import singular_sum as singular_sum
from jax_peig._singular.norms import NuclearNorm as NuclearNorm
from jax_peig._singular.norms import Thresholded as Thresholded
from jax_peig._singular.norms import ky_fan_norm as ky_fan_norm
from jax_peig._singular.norms import nuclear_norm as nuclear_norm
from jax_peig._singular.norms import singular_value_threshold as singular_value_threshold
from jax_peig._singular.space import LowRank as LowRank
from jax_peig._singular.space import low_rank as low_rank
from jax_peig._singular.space import singular_space as singular_space
from jax_peig._singular.svd import partial_svd as partial_svd
