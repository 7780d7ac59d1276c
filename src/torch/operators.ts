/** The operators behind the methods of Tensor, each under its name in the dispatcher. */
import { isTensor, Op } from './call.js';
import type { Dims, Scalar, Sizes, Tensor } from './tensor.js';

export const dims = (dim: Dims | undefined): readonly number[] | null => (dim === undefined ? null : typeof dim === 'number' ? [dim] : dim);
export const sizes = (shape: Sizes): readonly number[] =>
  Array.isArray(shape[0]) ? (shape[0] as readonly number[]) : (shape as readonly number[]);

/** Operators of a tensor and a tensor or number: `aten::add.Tensor` and `aten::add.Scalar`. */
export class Binary {
  private readonly tensor: Op;
  private readonly scalar: Op;
  constructor(name: string, tensor = 'Tensor', scalar = 'Scalar') {
    this.tensor = new Op(`aten::${name}.${tensor}`);
    this.scalar = new Op(`aten::${name}.${scalar}`);
  }
  one(self: Tensor, other: Tensor | Scalar): Tensor {
    return isTensor(other) ? this.tensor.one(self.handle, other.handle) : this.scalar.one(self.handle, other);
  }
  change(self: Tensor, other: Tensor | Scalar): Tensor {
    if (isTensor(other)) this.tensor.call(self.handle, other.handle);
    else this.scalar.call(self.handle, other);
    return self;
  }
}

const aten = (name: string): Op => new Op(`aten::${name}`);
export const [ADD, SUB, MUL, DIV] = [new Binary('add'), new Binary('sub'), new Binary('mul'), new Binary('div')];
export const [ADD_, SUB_, MUL_, DIV_] = [new Binary('add_'), new Binary('sub_'), new Binary('mul_'), new Binary('div_')];
export const POW = new Binary('pow', 'Tensor_Tensor', 'Tensor_Scalar');
export const REMAINDER = new Binary('remainder');
export const [LT, LE, GT, GE, EQ, NE] = [
  new Binary('lt'),
  new Binary('le'),
  new Binary('gt'),
  new Binary('ge'),
  new Binary('eq'),
  new Binary('ne'),
];
export const MASKED_FILL = [aten('masked_fill.Tensor'), aten('masked_fill.Scalar')] as const;
export const LERP = [aten('lerp.Tensor'), aten('lerp.Scalar')] as const;
export const LERP_ = [aten('lerp_.Tensor'), aten('lerp_.Scalar')] as const;
export const FILL_ = [aten('fill_.Tensor'), aten('fill_.Scalar')] as const;
export const NEG = aten('neg');
export const EXP = aten('exp');
export const LOG = aten('log');
export const SQRT = aten('sqrt');
export const RSQRT = aten('rsqrt');
export const ABS = aten('abs');
export const SQUARE = aten('square');
export const SIGN = aten('sign');
export const ROUND = aten('round');
export const FLOOR = aten('floor');
export const ERF = aten('erf');
export const ERFINV = aten('erfinv');
export const SIGMOID = aten('sigmoid');
export const SILU = aten('silu');
export const GELU = aten('gelu');
export const RELU = aten('relu');
export const TANH = aten('tanh');
export const COS = aten('cos');
export const SIN = aten('sin');
export const ISFINITE = aten('isfinite');
export const NOT = aten('logical_not');
export const AND = aten('logical_and');
export const OR = aten('logical_or');
export const SOFTMAX = aten('softmax.int');
export const LOG_SOFTMAX = aten('log_softmax.int');
export const LOGSUMEXP = aten('logsumexp');
export const MATMUL = aten('matmul');
export const SUM = aten('sum.dim_IntList');
export const MEAN = aten('mean.dim');
export const STD = aten('std.correction');
export const VAR = aten('var.correction');
export const NORM = aten('linalg_vector_norm');
export const ALL = aten('all');
export const ANY = aten('any');
export const MAX = [aten('max'), aten('max.dim')] as const;
export const MIN = [aten('min'), aten('min.dim')] as const;
export const AMAX = aten('amax');
export const AMIN = aten('amin');
export const ARGMAX = aten('argmax');
export const ARGMIN = aten('argmin');
export const ARGSORT = aten('argsort');
export const SORT = aten('sort');
export const TOPK = aten('topk');
export const CLAMP = aten('clamp');
export const CUMSUM = aten('cumsum');
export const VIEW = aten('view');
export const RESHAPE = aten('reshape');
export const PERMUTE = aten('permute');
export const TRANSPOSE = aten('transpose.int');
export const FLATTEN = aten('flatten.using_ints');
export const UNSQUEEZE = aten('unsqueeze');
export const SQUEEZE = [aten('squeeze'), aten('squeeze.dim')] as const;
export const EXPAND = aten('expand');
export const REPEAT = aten('repeat');
export const REPEAT_INTERLEAVE = aten('repeat_interleave.self_int');
export const NARROW = aten('narrow');
export const SELECT = aten('select.int');
export const SLICE = aten('slice.Tensor');
export const INDEX = aten('index.Tensor');
export const INDEX_SELECT = aten('index_select');
export const GATHER = aten('gather');
export const CHUNK = aten('chunk');
export const SPLIT = [aten('split.Tensor'), aten('split_with_sizes')] as const;
export const UNBIND = aten('unbind.int');
export const FLIP = aten('flip');
export const TRIL = aten('tril');
export const DIAGONAL = aten('diagonal');
export const CONTIGUOUS = aten('contiguous');
export const CLONE = aten('clone');
export const DETACH = aten('detach');
export const TO = aten('to.dtype_layout');
export const ITEM = aten('item');
export const REQUIRES_GRAD_ = aten('requires_grad_');
export const COPY_ = aten('copy_');
export const ZERO_ = aten('zero_');
export const CLAMP_ = aten('clamp_');
