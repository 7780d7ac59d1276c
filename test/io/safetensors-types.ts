import type { SafeDType } from '../../src/io/safetensors.js';

/** Every type that a file can hold, with the bytes of an element; stated here apart from the reader's own table. */
export const TYPES: readonly (readonly [type: SafeDType, bytes: number])[] = [
  ['F64', 8],
  ['F32', 4],
  ['BF16', 2],
  ['F16', 2],
  ['I64', 8],
  ['I32', 4],
  ['I16', 2],
  ['I8', 1],
  ['U8', 1],
  ['BOOL', 1],
];
