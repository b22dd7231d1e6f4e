"""Differentiable partial eigendecomposition in JAX; see `partial_eigh`."""

from jax_peig import operators as operators
from jax_peig import preconditioners as preconditioners
from jax_peig._eigenspace import eigenspace as eigenspace
from jax_peig._eigh import partial_eigh as partial_eigh
from jax_peig._matrix_function import hermitian_function as hermitian_function
from jax_peig._minres import MinresInfo as MinresInfo
from jax_peig._minres import MinresStatus as MinresStatus
from jax_peig._minres import minres as minres
from jax_peig._operators import BlockProduct as BlockProduct
from jax_peig._options import Derivative as Derivative
from jax_peig._report import CallReport as CallReport
from jax_peig._report import DerivativeReport as DerivativeReport
from jax_peig._report import derivative_report as derivative_report
from jax_peig._results import Eigenspace as Eigenspace
from jax_peig._results import Info as Info
from jax_peig._results import PartialEigh as PartialEigh
from jax_peig._results import PartialEighError as PartialEighError
from jax_peig._results import Status as Status
from jax_peig._spectral import density as density
from jax_peig._spectral import projector_apply as projector_apply
from jax_peig._spectral import spectral_apply as spectral_apply
from jax_peig._spectral import spectral_sum as spectral_sum
from jax_peig._well_posed import project_gauge as project_gauge
