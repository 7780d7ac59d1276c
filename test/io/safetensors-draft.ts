/** Sound safetensors files for the fuzz test, as drafts whose every part can be spoilt. All draws are functions of the file's number. */

import { integer, key } from '../../src/core/random.js';
import { TYPES } from './safetensors-types.js';

const KEY = key(3, 'hostile safetensors');

/** The draws for one file. */
export class Dice {
  #drawn = 0;

  constructor(readonly file: number) {}

  /** An integer in [0, n). */
  below(n: number): number {
    return integer(KEY, this.file, this.#drawn++, n);
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

/** Key and value as raw JSON. */
export type Raw = [key: string, value: string];

/** A file before its bytes. */
export interface Draft {
  readonly tensors: [key: string, fields: Raw[]][];
  metadata: Raw[];
  /** More members of the header, raw. */
  readonly more: string[];
  before: string;
  after: string;
  /** Put between all tokens. */
  space: string;
  /** Spoils the header's bytes. */
  patch: (json: Buffer) => Buffer;
  /** The header length that the file states, from its true one and the file's. */
  claim: (length: bigint, file: bigint) => bigint;
  data: Buffer;
}

const NAMES = [
  'a',
  'w',
  'trunk.0.qkv',
  'é',
  '\u{1f600}',
  '',
  '__proto__',
  'constructor',
  'toString',
  '"\\\n',
  '\0',
  '123',
  ' ',
  '__metadata',
];
const METADATA: Raw[] = [
  ['"k"', '"v"'],
  ['"constructor"', '"\\u00e9\\ud83d\\ude00"'],
];

/** A sound file: two to five tensors, of which one at least holds bytes. */
export function draft(dice: Dice): Draft {
  const names = new Set<string>();
  for (const most = 2 + dice.below(4); names.size < most; ) names.add(dice.pick(NAMES));
  const tensors: Draft['tensors'] = [];
  const chunks: Buffer[] = [];
  let end = 0;
  for (const name of names) {
    const [dtype, width] = dice.pick(TYPES);
    const least = tensors.length === 0 ? 1 : 0;
    const shape = Array.from({ length: dice.below(4) }, () => least + dice.below(3));
    const length = shape.reduce((n, extent) => n * extent, width);
    chunks.push(Buffer.from(Array.from({ length }, () => dice.below(dtype === 'BOOL' ? 2 : 256))));
    const fields: Raw[] = [
      ['"dtype"', `"${dtype}"`],
      ['"shape"', `[${shape}]`],
      ['"data_offsets"', `[${end},${end + length}]`],
    ];
    end += length;
    tensors.push([JSON.stringify(name), dice.below(2) ? fields : fields.reverse()]);
  }
  if (dice.below(2)) tensors.reverse();
  return {
    tensors,
    metadata: METADATA.slice(0, dice.below(METADATA.length + 1)),
    more: [],
    before: '',
    after: ' '.repeat(dice.below(3)),
    space: dice.pick(['', '', '', ' ', '\n\t', '\r']),
    patch: (json) => json,
    claim: (length) => length,
    data: Buffer.concat(chunks),
  };
}

export function bytesOf({ tensors, metadata, more, before, after, space, patch, claim, data }: Draft): Buffer {
  const object = (pairs: readonly Raw[]): string => `{${pairs.map(([k, v]) => `${space}${k}${space}:${space}${v}${space}`).join(',')}}`;
  const members = tensors.map(([name, fields]): Raw => [name, object(fields)]);
  if (metadata.length > 0) members.splice(members.length >> 1, 0, ['"__metadata__"', object(metadata)]);
  const text = object(members);
  const whole = more.length === 0 ? text : `${text.slice(0, -1)},${more.join(',')}}`;
  const json = patch(Buffer.from(before + whole + after));
  const head = Buffer.alloc(8);
  const length = BigInt(json.length);
  head.writeBigUInt64LE(BigInt.asUintN(64, claim(length, length + 8n + BigInt(data.length))));
  return Buffer.concat([head, json, data]);
}

/** The same JSON string with its first character as an escape; an empty one as it is. */
export function escaped(json: string): string {
  const text = JSON.parse(json) as string;
  if (text === '') return json;
  return `"\\u${text.charCodeAt(0).toString(16).padStart(4, '0')}${JSON.stringify(text.slice(1)).slice(1)}`;
}
