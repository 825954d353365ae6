"""The affine layer."""

import flax.linen as nn
import jax

from sat_jax.models.attention import product_precision
from sat_jax.models.few_rows import product

LINEAR_STD = 0.02
"""Standard deviation of fresh matrices."""

# PyTorch cuts its truncated normal off at ±2 whatever the deviation; JAX cuts at two deviations,
# which would leave 0.88 of this one.
LINEAR_INIT = nn.initializers.truncated_normal(
    LINEAR_STD, lower=-2 / LINEAR_STD, upper=2 / LINEAR_STD
)


class Linear(nn.Module):
    """x·kernelᵀ + bias, the kernel stored [out, in] as in PyTorch.

    Not `nn.Dense`, whose kernel is [in, out]: CPUs multiply the few rows of a chunk faster by rows
    of weights (products of a whole model: 1.0 to 1.25 times, more for wider models).

    Attributes:
      features: outputs.
      dtype: precision of the computation, see `product_precision`; weights are float32.
    """

    features: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array, *, skip: int = 0) -> jax.Array:
        """Maps [..., d] -> [..., features - skip], without the first `skip` outputs."""
        shape = (self.features, x.shape[-1])
        kernel = self.param("kernel", LINEAR_INIT, shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[:1]).astype(self.dtype)
        precision = product_precision(kernel.dtype)
        return product(x.astype(self.dtype), kernel, skip, precision) + bias[skip:]
