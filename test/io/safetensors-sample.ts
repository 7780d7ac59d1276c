/**
 * A sample of all that our writer can write, for Python's safetensors to read. As a program:
 *
 *     node dist/test/io/safetensors-sample.js FILE EXPECTED.json
 *
 * writes the file, and what `test/fixtures/safetensors/make.py --check FILE EXPECTED.json` should find in it.
 */

import { createHash } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { argv } from 'node:process';
import { pathToFileURL } from 'node:url';
import { encodeSafetensors, type SafeDType, type SafeTensor, writeSafetensors } from '../../src/io/safetensors.js';
import { TYPES } from './safetensors-types.js';

const SHAPES = [[], [1], [5], [2, 3], [0], [4, 0, 2], [1, 2, 1, 3, 2]];
const NAMES = [
  '',
  ' ',
  'é',
  'e\u0301',
  '重み',
  '\u{1f600}',
  '"\\/',
  '\n\t\0\x1f',
  '\x7f\u0085\u2028',
  '__proto__',
  'constructor',
  '__metadata',
  '\uffff',
];

/** All types in all shapes, bytes of every value, names that are hard to write. */
export const TENSORS: ReadonlyMap<string, SafeTensor> = new Map([
  ...TYPES.flatMap(([dtype, width]) => SHAPES.map((shape): [string, SafeTensor] => [`${dtype} [${shape}]`, tensor(dtype, width, shape)])),
  ...NAMES.map((name, i): [string, SafeTensor] => [name, tensor('U8', 1, [i])]),
]);
export const METADATA: ReadonlyMap<string, string> = new Map(NAMES.map((name) => [name, `<${name}>`]));

function tensor(dtype: SafeDType, width: number, shape: readonly number[]): SafeTensor {
  const length = shape.reduce((n, extent) => n * extent, width);
  return { dtype, shape, data: Uint8Array.from({ length }, (_, i) => (dtype === 'BOOL' ? i % 2 : (i * 41 + 250) % 256)) };
}

export function sha256(chunks: readonly Uint8Array[]): string {
  const hash = createHash('sha256');
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest('hex');
}

/** What a reader should find, as plain data. */
export function expected(): { sha256: string; metadata: object; tensors: object } {
  const tensors = [...TENSORS].map(([name, { dtype, shape, data }]) => [name, { dtype, shape, hex: Buffer.from(data).toString('hex') }]);
  return {
    sha256: sha256(encodeSafetensors(TENSORS, METADATA)),
    metadata: Object.fromEntries(METADATA),
    tensors: Object.fromEntries(tensors),
  };
}

if (argv[1] !== undefined && import.meta.url === pathToFileURL(argv[1]).href) {
  writeSafetensors(argv[2]!, TENSORS, METADATA);
  writeFileSync(argv[3]!, JSON.stringify(expected()));
}
