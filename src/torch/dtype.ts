/** Element types and devices, and what the addon calls them. */

export type DType = 'float32' | 'float64' | 'bfloat16' | 'float16' | 'int64' | 'int32' | 'int16' | 'int8' | 'uint8' | 'bool';
export type Device = 'cpu' | 'cuda' | `cuda:${number}`;

/** What a factory makes: float32 on the CPU, without gradient, unless said. */
export interface TensorOptions {
  readonly dtype?: DType | undefined;
  readonly device?: Device | undefined;
  readonly requiresGrad?: boolean | undefined;
}

/** libtorch's c10::ScalarType. */
const CODES: Readonly<Record<DType, number>> = {
  uint8: 0,
  int8: 1,
  int16: 2,
  int32: 3,
  int64: 4,
  float16: 5,
  float32: 6,
  float64: 7,
  bool: 11,
  bfloat16: 15,
};

const NAMES = new Map(Object.entries(CODES).map(([name, code]) => [code, name as DType]));
const BYTES: Readonly<Record<DType, number>> = {
  uint8: 1,
  int8: 1,
  bool: 1,
  int16: 2,
  float16: 2,
  bfloat16: 2,
  int32: 4,
  float32: 4,
  int64: 8,
  float64: 8,
};

/** @throws TypeError for a name that is none of the ten. */
export function dtypeCode(dtype: DType): number {
  const code = Object.hasOwn(CODES, dtype) ? CODES[dtype] : undefined;
  if (code === undefined) throw new TypeError(`unknown dtype ${JSON.stringify(dtype)}: expected one of ${Object.keys(CODES).join(', ')}`);
  return code;
}

/** The code, or undefined so that the operator's default holds. */
export const optionalCode = (dtype: DType | undefined): number | undefined => (dtype === undefined ? undefined : dtypeCode(dtype));

/** @throws TypeError for a dtype that dsd does not know (complex, quantised). */
export function dtypeName(code: number): DType {
  const name = NAMES.get(code);
  if (!name) throw new TypeError(`a tensor of libtorch's scalar type ${code} has no dtype here`);
  return name;
}

/** Size of an element. */
export const dtypeBytes = (dtype: DType): number => BYTES[dtype];

/** float32, float64, bfloat16, float16: those that can have a gradient. */
export const isFloating = (dtype: DType): boolean => dtype.includes('float');
