/** Symmetric eigendecomposition in float64 on the CPU, by LAPACK: of covariances nothing else is ever taken, a general matrix root least of all. */
import { eigh, scope, type Tensor, tensor } from '../torch/index.js';

export interface Eigen {
  /** Ascending. Of a covariance they are >= 0 up to rounding: clamp before a root. */
  readonly values: Float64Array;
  /** (D, D) float64 on the CPU; column i belongs to value i. The caller's to dispose, or its scope's. */
  readonly vectors: Tensor;
}

/** @param matrix D * D values, symmetric up to rounding (it is made so first), finite */
export function eigen(matrix: Float64Array): Eigen {
  const D = Math.sqrt(matrix.length);
  return scope(() => {
    const [values, vectors] = eigh(symmetric(tensor(matrix, [D, D], { dtype: 'float64' })));
    return { values: values.toArray() as Float64Array, vectors };
  });
}

/** Eigenvalues alone, ascending. */
export function eigenvalues(matrix: Float64Array): Float64Array {
  return scope(() => eigen(matrix).values);
}

/** LAPACK reads one triangle only; the mean of both loses nothing to which one it is. */
function symmetric(a: Tensor): Tensor {
  return a.add(a.transpose(0, 1)).mul(0.5);
}
