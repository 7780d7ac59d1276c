/** What can be wrong with a safetensors file's structure, one thing at a time, and what may differ without being wrong. */
import { type Dice, type Draft, escaped, type Raw } from './safetensors-draft.js';

/** A name, and what it does to a sound draft. */
export type Mutation = readonly [name: string, apply: (draft: Draft, dice: Dice) => void];

/** No integers of the format, though JSON or something near it takes most of them for numbers. */
const NO_NUMBERS = [
  ...['-1', '-0', '1.0', '0.5', '1e0', '1E2', '1e400', '01', '00', '+1', '0x1', '.5', '1.', '1_0', '"1"', 'true', 'null', 'NaN', '1n'],
  ...['9007199254740992', '18446744073709551615', '18446744073709551616', '-9223372036854775808', '1'.repeat(400)],
  ...['[1]', '{}', '\u0661', '1 1', 'Infinity'],
];
const NO_TYPES = [
  'f32',
  'F8_E4M3',
  'F8_E5M2',
  'U16',
  'U32',
  'U64',
  'C64',
  'F4',
  '',
  'constructor',
  '__proto__',
  'F32 ',
  'float32',
  '\\u0000',
];
const NO_TEXT = ['1', 'null', 'true', '{}', '[]', '{"a":"b"}', "'v'", 'U8', '["U8"]'];
const HUGE = ['[4294967296,4294967296]', '[9007199254740991,2]', '[0,9007199254740991,9007199254740991]', '[1125899906842624]'];
const NO_UTF8 = [[0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0x80], [0xf5, 0x80, 0x80, 0x80], [0xe2, 0x82], [0xf0, 0x9f, 0x98], [0xc3]];
const NO_ESCAPES = ['\\x41', '\\u12', '\\', '\\u{41}', '\\0', "\\'", '\n', '\t', '\u0001'];
const LONE = ['\\ud800', '\\udfff', '\\ude00\\ud83d', '\\uD83D\\u0041'];
const NO_PADDING = ['\n', ' \t', '\0', '\u00a0', '\ufeff', '\r ', '\u2003', ' x', '}', '{}', ',', '\0'.repeat(7)];
const NO_SPACE = ['\u00a0', '\f', '\v', '\ufeff', '\u2028', '/**/', '\0', '//\n'];
const NO_LENGTHS: Draft['claim'][] = [
  ...[(n: bigint) => n + 2n ** 32n, (n: bigint) => n + 2n ** 53n, (n: bigint) => -n],
  ...[0n, 1n, 2n ** 24n + 1n, 2n ** 31n, 2n ** 63n, 2n ** 64n - 1n].map((length) => () => length),
  ...[(_: bigint, file: bigint) => file, (_: bigint, file: bigint) => file - 7n],
];

function field(draft: Draft, dice: Dice, name: string): Raw {
  return dice.pick(draft.tensors)[1].find(([k]) => JSON.parse(k) === name)!;
}

/** Changes the offsets of a tensor that is not empty. */
function offsets(draft: Draft, dice: Dice, change: (begin: number, end: number) => number[]): void {
  const all = draft.tensors.map(([, fields]) => fields.find(([k]) => JSON.parse(k) === 'data_offsets')!);
  const one = dice.pick(all.filter(([, value]) => !/^\[(\d+),\1\]$/.test(value)));
  const [begin, end] = JSON.parse(one[1]) as [number, number];
  one[1] = `[${change(begin, end)}]`;
}

function numbers(of: Raw, change: (list: string[]) => void): void {
  const list = of[1] === '[]' ? [] : of[1].slice(1, -1).split(',');
  change(list);
  of[1] = `[${list}]`;
}

/** A tensor of bytes as a member of the header. */
function u8(name: string, begin: number, length: number): string {
  return `"${name}":{"dtype":"U8","shape":[${length}],"data_offsets":[${begin},${begin + length}]}`;
}

function grow(draft: Draft, bytes: number): void {
  draft.data = Buffer.concat([draft.data, Buffer.alloc(bytes)]);
}

/** Each makes of any sound file one that must be refused. */
export const SPOILERS: readonly Mutation[] = [
  ['one byte more of the tensor before', (d, dice) => offsets(d, dice, (a, b) => (a === 0 ? [0, b + 1] : [a - 1, b]))],
  ['the same bytes twice', (d) => d.more.push(u8('twice', 0, 1))],
  [
    'a hole',
    (d, dice) => {
      const skip = 1 + dice.below(9);
      d.more.push(u8('far', d.data.length + skip, 1));
      grow(d, skip + 1);
    },
  ],
  ['a tensor shifted by a byte', (d, dice) => offsets(d, dice, (a, b) => [a + 1, b + 1])],
  [
    'an empty tensor inside another',
    (d) => {
      const at = d.data.length;
      d.more.push(u8('x', at, 2), u8('y', at + 1, 0));
      grow(d, 2);
    },
  ],
  ['an end beyond the file', (d, dice) => offsets(d, dice, (a, b) => [a, b + dice.pick([1, 8, 2 ** 20, 2 ** 40, 2 ** 52])])],
  ['a tensor beyond the file', (d, dice) => d.more.push(u8('more', d.data.length, dice.pick([1, 2 ** 20, 2 ** 40])))],
  ['offsets exchanged', (d, dice) => offsets(d, dice, (a, b) => [b, a])],
  ['one offset', (d, dice) => offsets(d, dice, (a) => [a])],
  ['three offsets', (d, dice) => offsets(d, dice, (a, b) => [a, b, b])],
  [
    'no integer in the offsets',
    (d, dice) => numbers(field(d, dice, 'data_offsets'), (list) => list.splice(dice.below(2), 1, dice.pick(NO_NUMBERS))),
  ],
  [
    'no integer in the shape',
    (d, dice) => numbers(field(d, dice, 'shape'), (list) => list.splice(dice.below(list.length + 1), dice.below(2), dice.pick(NO_NUMBERS))),
  ],
  [
    'a comma too many in the shape',
    (d, dice) => numbers(field(d, dice, 'shape'), (list) => list.splice(dice.below(list.length + 1), 0, '', '')),
  ],
  [
    'a huge shape',
    (d, dice) => {
      field(d, dice, 'shape')[1] = dice.pick(HUGE);
    },
  ],
  ['more axes than any tensor has', (d, dice) => numbers(field(d, dice, 'shape'), (list) => list.push(...Array<string>(33).fill('1')))],
  [
    'a bracket left out',
    (d, dice) => {
      const one = field(d, dice, 'shape');
      one[1] = dice.below(2) ? one[1].slice(1) : one[1].slice(0, -1);
    },
  ],
  [
    'an unknown type',
    (d, dice) => {
      field(d, dice, 'dtype')[1] = `"${dice.pick(NO_TYPES)}"`;
    },
  ],
  [
    'a type that is no text',
    (d, dice) => {
      field(d, dice, 'dtype')[1] = dice.pick(NO_TEXT);
    },
  ],
  [
    'a field twice',
    (d, dice) => {
      const [, fields] = dice.pick(d.tensors);
      fields.push(dice.pick(fields));
    },
  ],
  [
    'a field twice, spelt otherwise',
    (d, dice) => {
      const [, fields] = dice.pick(d.tensors);
      const [k, v] = dice.pick(fields);
      fields.unshift([escaped(k), v]);
    },
  ],
  ['a name twice', (d, dice) => d.tensors.push(dice.pick(d.tensors))],
  [
    'a name twice, spelt otherwise',
    (d, dice) => {
      const [k, v] = dice.pick(d.tensors.filter(([name]) => name !== '""'));
      d.tensors.unshift([escaped(k), v]);
    },
  ],
  [
    'metadata twice',
    (d, dice) => {
      d.metadata.push(['"m"', '""']);
      d.more.push(`${dice.pick(['"__metadata__"', '"\\u005f_metadata__"'])}:{}`);
    },
  ],
  ['a key of the metadata twice', (d, dice) => d.metadata.push(['"x"', '"1"'], [dice.pick(['"x"', '"\\u0078"']), '"1"'])],
  ['metadata that is no text', (d, dice) => d.metadata.push(['"n"', dice.pick(NO_TEXT)])],
  [
    'metadata that is no object',
    (d, dice) => {
      d.metadata = [];
      d.more.push(`"__metadata__":${dice.pick(['null', '[]', '""', '1'])}`);
    },
  ],
  [
    'an unknown field',
    (d, dice) =>
      dice
        .pick(d.tensors)[1]
        .push([dice.pick(['"x"', '"__proto__"', '"constructor"', '"shape "', '""', '"Dtype"']), dice.pick(['1', '{}', '"F32"', '[0,1]'])]),
  ],
  ['a missing field', (d, dice) => dice.pick(d.tensors)[1].splice(dice.below(3), 1)],
  [
    'a member that is no tensor',
    (d, dice) =>
      d.more.push(`"__proto__x":${dice.pick([...NO_TEXT, '"x"', '{"__proto__":{"dtype":"U8","shape":[],"data_offsets":[0,0]}}'])}`),
  ],
  [
    'deep JSON',
    (d, dice) => {
      const n = 1 + dice.below(400);
      d.more.push(`"deep":${dice.below(2) ? '['.repeat(n) + ']'.repeat(n) : `${'{"a":'.repeat(n)}1${'}'.repeat(n)}`}`);
    },
  ],
  [
    'deep JSON in a field',
    (d, dice) => {
      const n = 2 + dice.below(400);
      dice.pick(dice.pick(d.tensors)[1])[1] = '['.repeat(n) + ']'.repeat(n * dice.below(2));
    },
  ],
  [
    'bytes that are not UTF-8',
    (d, dice) => {
      d.patch = (json) => {
        const at = 1 + dice.below(json.length);
        return Buffer.concat([json.subarray(0, at), Buffer.from(dice.pick(NO_UTF8)), json.subarray(at)]);
      };
    },
  ],
  [
    'a byte order mark',
    (d) => {
      d.before = '\ufeff';
    },
  ],
  [
    'something before',
    (d, dice) => {
      d.before = dice.pick([' ', '\n', '[', '\0', '"', ',', '{']);
    },
  ],
  [
    'a lone surrogate in a name',
    (d, dice) => {
      dice.pick(d.tensors)[0] = `"x${dice.pick(LONE)}"`;
    },
  ],
  [
    'a lone surrogate in the metadata',
    (d, dice) => d.metadata.push(dice.below(2) ? ['"s"', `"${dice.pick(LONE)}"`] : [`"${dice.pick(LONE)}"`, '""']),
  ],
  ['an escape that JSON does not have', (d, dice) => d.metadata.push(['"e"', `"${dice.pick(NO_ESCAPES)}"`])],
  ['bytes after the data', (d, dice) => grow(d, 1 + dice.below(9))],
  [
    'the data cut',
    (d, dice) => {
      d.data = d.data.subarray(0, dice.below(d.data.length));
    },
  ],
  [
    'padding that is not spaces',
    (d, dice) => {
      d.after = dice.pick(NO_PADDING);
    },
  ],
  [
    'whitespace that JSON does not have',
    (d, dice) => {
      d.space = dice.pick(NO_SPACE);
    },
  ],
  [
    'an impossible header length',
    (d, dice) => {
      d.claim = dice.pick(NO_LENGTHS);
    },
  ],
  [
    'a header length that cuts the text',
    (d) => {
      const padding = BigInt(d.after.length);
      d.claim = (length) => length - padding - 1n;
    },
  ],
  ['a comma too many', (d) => d.more.push('')],
  [
    'a name without its quotes',
    (d, dice) => {
      dice.pick(d.tensors)[0] = dice.pick(['a', "'a'", '1', 'null', '"a', 'a"']);
    },
  ],
];

/** Each leaves a sound file sound. */
export const VARIANTS: readonly Mutation[] = [
  [
    'a name spelt with an escape',
    (d, dice) => {
      const one = dice.pick(d.tensors);
      one[0] = escaped(one[0]);
    },
  ],
  [
    'fields spelt with escapes',
    (d, dice) => {
      for (const one of dice.pick(d.tensors)[1]) one[0] = escaped(one[0]);
    },
  ],
  [
    'a type spelt with an escape',
    (d, dice) => {
      const one = field(d, dice, 'dtype');
      one[1] = escaped(one[1]);
    },
  ],
  [
    'space between all tokens',
    (d, dice) => {
      d.space = dice.pick([' ', '\t', '\n', '\r\n', '   \n']);
    },
  ],
  [
    'more padding',
    (d, dice) => {
      d.after = ' '.repeat(dice.below(40));
    },
  ],
  [
    'a name of the prototype',
    (d, dice) => {
      d.tensors[0]![0] = dice.pick(['"hasOwnProperty"', '"valueOf"', '"__defineGetter__"', '"__pr\\u006fto__x"']);
    },
  ],
  ['axes of one', (d, dice) => numbers(field(d, dice, 'shape'), (list) => list.push(...Array<string>(1 + dice.below(29)).fill('1')))],
  [
    'an empty tensor',
    (d, dice) => {
      const at = dice.pick([0, d.data.length]);
      d.more.push(`"empty":{"dtype":"F32","shape":[${dice.pick(['0', '3,0', '0,0', '4294967296,0'])}],"data_offsets":[${at},${at}]}`);
    },
  ],
  [
    'empty metadata',
    (d) => {
      if (d.metadata.length === 0) d.more.push('"__metadata__":{}');
    },
  ],
  [
    'a tensor more',
    (d, dice) => {
      const length = 1 + dice.below(9);
      d.more.push(u8('last', d.data.length, length));
      grow(d, length);
    },
  ],
];
