/**
 * Weights in safetensors files (the format of huggingface/safetensors: 8 bytes of header length, a JSON header, the tensors' bytes), read as
 * if every file were hostile. Nothing is allocated on a file's word alone: the header's length is bounded by a constant and by the file,
 * a tensor's by its shape, its offsets and the file, which must all agree.
 *
 * Stricter than the format's own reader: no duplicate key at any level (also when written with other escapes), no field that is not
 * known, no lone surrogate, no boolean but 0 and 1, bounded counts of names and axes. Little-endian machines only, as everywhere here.
 */
import { FailureError } from '../core/errors.js';
import { type Disk, disk as realDisk } from './disk.js';

/** A file is not what it should be, or tensors cannot be written as given. */
export class SafetensorsError extends FailureError {}

export type SafeDType = 'F64' | 'F32' | 'BF16' | 'F16' | 'I64' | 'I32' | 'I16' | 'I8' | 'U8' | 'BOOL';

export interface SafeTensor {
  readonly dtype: SafeDType;
  readonly shape: readonly number[];
  /** The elements, row-major and little-endian; read ones start at an offset of 0 in a buffer of their own. */
  readonly data: Uint8Array;
}

export interface Safetensors {
  /** By name, in the order of their bytes in the file. */
  readonly tensors: Map<string, SafeTensor>;
  readonly metadata: Map<string, string>;
}

const WIDTH: ReadonlyMap<string, number> = new Map<SafeDType, number>([
  ['F64', 8],
  ['I64', 8],
  ['F32', 4],
  ['I32', 4],
  ['BF16', 2],
  ['F16', 2],
  ['I16', 2],
  ['I8', 1],
  ['U8', 1],
  ['BOOL', 1],
]);
const METADATA = '__metadata__';
const MAX_HEADER = 2 ** 24;
/** Names in one object, of tensors or of metadata: a header full of short ones would take many times its size in memory. */
const MAX_NAMES = 2 ** 17;
const MAX_RANK = 32;
/** Characters of a file's text that a message quotes. */
const MAX_QUOTED = 80;
const LENGTH_BYTES = 8;

interface Entry {
  readonly name: string;
  readonly dtype: SafeDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

/**
 * Reads a file: the header first, then each tensor by position into its own buffer, so that twice the file is never in memory.
 * @throws SafetensorsError saying what is wrong with the file; DiskError if it cannot be read
 */
export function readSafetensors(path: string, disk: Disk = realDisk): Safetensors {
  const file = disk.open(path);
  try {
    return read(path, file.size, (position, length) => file.read(position, length));
  } finally {
    file.close();
  }
}

/**
 * The same from memory. The tensors are copies.
 * @param name what messages call it
 * @throws SafetensorsError
 */
export function parseSafetensors(bytes: Uint8Array, name: string): Safetensors {
  // Not `bytes.slice`: a Buffer's is a view of the caller's memory.
  return read(name, bytes.byteLength, (position, length) => new Uint8Array(bytes.subarray(position, position + length)));
}

/**
 * A file's bytes in chunks: the header, then each tensor's own data, not copied. The same tensors and metadata give the same bytes whatever
 * the order of the maps: widest elements first (so that each tensor is aligned), then by name.
 * @throws SafetensorsError for what `readSafetensors` would refuse
 */
export function encodeSafetensors(
  tensors: ReadonlyMap<string, SafeTensor>,
  metadata: ReadonlyMap<string, string> = new Map(),
): Uint8Array[] {
  const fail = (problem: string): never => {
    throw new SafetensorsError(`cannot write safetensors: ${problem}`);
  };
  const text = (value: string, what: string): string => {
    if (!wellFormed(value)) fail(`${what} ${quote(value)} is not valid Unicode`);
    return JSON.stringify(value);
  };
  const width = (tensor: SafeTensor): number => WIDTH.get(tensor.dtype) ?? 0;
  const order = [...tensors].sort(([a, s], [b, t]) => width(t) - width(s) || compare(a, b));
  const fields: string[] = [];
  if (metadata.size > 0) {
    const pairs = [...metadata].sort(([a], [b]) => compare(a, b)).map(([k, v]) => `${text(k, 'metadata key')}:${text(v, 'metadata')}`);
    fields.push(`"${METADATA}":{${pairs.join(',')}}`);
  }
  let end = 0;
  for (const [name, { dtype, shape, data }] of order) {
    if (name === METADATA) fail(`a tensor cannot be called ${METADATA}`);
    const length = byteLength(dtype, shape) ?? fail(`tensor ${quote(name)} has the impossible type ${dtype} [${shape}]`);
    if (data.byteLength !== length) fail(`tensor ${quote(name)} has ${data.byteLength} bytes where ${dtype} [${shape}] takes ${length}`);
    if (dtype === 'BOOL' && data.some((byte) => byte > 1)) fail(`tensor ${quote(name)} has a boolean that is neither 0 nor 1`);
    const begin = end;
    end += length;
    fields.push(`${text(name, 'the name')}:{"dtype":"${dtype}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`);
  }
  const names = Math.max(fields.length, metadata.size);
  if (names > MAX_NAMES) fail(`it would have ${names} names, and readers accept ${MAX_NAMES}`);
  const json = new TextEncoder().encode(`{${fields.join(',')}}`);
  const length = Math.ceil(json.byteLength / 8) * 8; // padded with spaces, so that the data is aligned in the file
  if (length > MAX_HEADER) fail(`the header has ${length} bytes, and readers accept ${MAX_HEADER}`);
  const header = new Uint8Array(LENGTH_BYTES + length).fill(0x20);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, LENGTH_BYTES);
  return [header, ...order.map(([, { data }]) => data)];
}

/**
 * Writes a file atomically.
 * @throws SafetensorsError as `encodeSafetensors`; DiskError if it cannot be written, and then an old file stands
 */
export function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, SafeTensor>,
  metadata: ReadonlyMap<string, string> = new Map(),
  disk: Disk = realDisk,
): void {
  disk.writeFileAtomic(path, encodeSafetensors(tensors, metadata));
}

function read(name: string, size: number, bytes: (position: number, length: number) => Uint8Array): Safetensors {
  const fail = (problem: string): never => {
    throw new SafetensorsError(
      `${name} is not a valid safetensors file: ${problem}. It may be cut off or of another kind; fetch or export it again`,
    );
  };
  if (size < LENGTH_BYTES + 2) fail(`it has ${size} bytes`);
  const prefix = new DataView(bytes(0, LENGTH_BYTES).buffer);
  // Two uint32 and not a bigint made into a number: 2^53 + 1 must not pass as 2^53.
  const length = prefix.getUint32(4, true) === 0 ? prefix.getUint32(0, true) : Number.POSITIVE_INFINITY;
  if (length > MAX_HEADER) fail(`its header claims more than ${MAX_HEADER} bytes`);
  if (length < 2 || length > size - LENGTH_BYTES) fail(`its header claims ${length} of the ${size - LENGTH_BYTES} bytes that follow`);
  let text = '';
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes(LENGTH_BYTES, length));
  } catch {
    fail('its header is not UTF-8');
  }
  const { entries, metadata } = new HeaderScanner(text, fail).header();

  entries.sort((a, b) => a.begin - b.begin || a.end - b.end);
  const start = LENGTH_BYTES + length;
  const last = entries.reduce((at, { name: tensor, begin, end }) => {
    if (begin !== at) fail(`tensor ${quote(tensor)} starts at byte ${begin} of the data and not at ${at}, where the one before ends`);
    return end;
  }, 0);
  if (last !== size - start) fail(`its tensors take ${last} bytes and ${size - start} follow the header`);

  const tensors = new Map<string, SafeTensor>();
  for (const { name: tensor, dtype, shape, begin, end } of entries) {
    const data = bytes(start + begin, end - begin);
    if (dtype === 'BOOL' && data.some((byte) => byte > 1)) fail(`tensor ${quote(tensor)} has a boolean that is neither 0 nor 1`);
    tensors.set(tensor, { dtype, shape, data });
  }
  return { tensors, metadata };
}

/** Bytes of a tensor, or undefined for an unknown type, a bad shape, or a size that is not exact as a number. */
function byteLength(dtype: string, shape: readonly number[]): number | undefined {
  const width = WIDTH.get(dtype);
  if (width === undefined || shape.length > MAX_RANK) return undefined;
  // Zeros count as ones here: strides of a shape like [0, 2^40, 2^40] would overflow even though the tensor is empty.
  let bound = width;
  for (const extent of shape) {
    if (!Number.isSafeInteger(extent) || extent < 0) return undefined;
    bound *= Math.max(1, extent);
    if (!Number.isSafeInteger(bound)) return undefined;
  }
  return shape.includes(0) ? 0 : bound;
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Text of a file for a message: cut short, and nothing in it commands a terminal or turns the direction of writing. */
function quote(text: string): string {
  const shown = JSON.stringify(text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text);
  return shown.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (one) => `\\u{${one.codePointAt(0)!.toString(16)}}`);
}

/** Without lone surrogates: with the flag `u` the pattern matches no pair. */
function wellFormed(text: string): boolean {
  return !/[\uD800-\uDFFF]/u.test(text);
}

/**
 * Reads exactly the JSON that a header may be, and nothing else that JSON can say. JSON.parse would hide duplicate keys, round long
 * numbers and give `__proto__` a meaning; a grammar of three levels without recursion cannot be nested too deep.
 */
class HeaderScanner {
  private at = 0;

  constructor(
    private readonly text: string,
    private readonly stop: (problem: string) => never,
  ) {}

  header(): { entries: Entry[]; metadata: Map<string, string> } {
    const entries: Entry[] = [];
    const metadata = new Map<string, string>();
    if (this.text[0] !== '{') this.fail("'{'");
    this.object('the header', (key) => {
      if (key === METADATA) this.object('the metadata', (name) => metadata.set(name, this.string()));
      else entries.push(this.entry(key));
    });
    if (/[^ ]/.test(this.text.slice(this.at))) this.fail('nothing but spaces');
    return { entries, metadata };
  }

  private entry(name: string): Entry {
    const quoted = quote(name);
    let dtype: string | undefined;
    let shape: number[] | undefined;
    let offsets: number[] | undefined;
    this.object(`tensor ${quoted}`, (field) => {
      if (field === 'dtype') dtype = this.string();
      else if (field === 'shape') shape = this.integers(MAX_RANK);
      else if (field === 'data_offsets') offsets = this.integers(2);
      else this.stop(`tensor ${quoted} has an unknown field ${quote(field)}`);
    });
    if (dtype === undefined || shape === undefined || offsets === undefined)
      return this.stop(`tensor ${quoted} lacks its dtype, shape or data_offsets`);
    if (!isDType(dtype)) return this.stop(`tensor ${quoted} has the type ${quote(dtype)}, known are ${[...WIDTH.keys()].join(', ')}`);
    const [begin, end] = offsets;
    if (begin === undefined || end === undefined || end < begin) return this.stop(`tensor ${quoted} has the offsets [${offsets}]`);
    const length = byteLength(dtype, shape);
    if (length !== end - begin)
      return this.stop(`tensor ${quoted}, ${dtype} [${shape}], takes ${length ?? 'too many'} bytes and its offsets span ${end - begin}`);
    return { name, dtype, shape, begin, end };
  }

  /** `{"key": value, ...}` with unique keys; `member` reads the value. */
  private object(what: string, member: (key: string) => void): void {
    const keys = new Set<string>();
    this.expect('{');
    if (this.accept('}')) return;
    do {
      const key = this.string();
      if (keys.has(key)) this.stop(`${what} has the key ${quote(key)} twice`);
      keys.add(key);
      if (keys.size > MAX_NAMES) this.stop(`${what} has more than ${MAX_NAMES} names`);
      this.expect(':');
      member(key);
    } while (this.accept(','));
    this.expect('}');
  }

  /** `[1, 2, ...]`, at most `limit` of them. */
  private integers(limit: number): number[] {
    const values: number[] = [];
    this.expect('[');
    if (this.accept(']')) return values;
    do {
      if (values.length === limit) this.fail(`at most ${limit} numbers`);
      values.push(this.integer());
    } while (this.accept(','));
    this.expect(']');
    return values;
  }

  private integer(): number {
    this.space();
    const pattern = /(?:0|[1-9][0-9]{0,15})(?![0-9.eE])/y; // 16 digits hold every safe integer
    pattern.lastIndex = this.at;
    const digits = pattern.exec(this.text)?.[0] ?? this.fail('an integer');
    const value = Number(digits);
    if (!Number.isSafeInteger(value)) this.fail('an integer below 2^53');
    this.at += digits.length;
    return value;
  }

  private string(): string {
    this.space();
    let end = this.at + 1;
    if (this.text[this.at] === '"') while (end < this.text.length && this.text[end] !== '"') end += this.text[end] === '\\' ? 2 : 1;
    let value: unknown;
    try {
      value = JSON.parse(this.text.slice(this.at, end + 1)); // strict about escapes and control characters
    } catch {
      this.fail('a string');
    }
    if (typeof value !== 'string' || !wellFormed(value)) return this.fail('a string of valid Unicode');
    this.at = end + 1;
    return value;
  }

  private space(): void {
    while (' \t\n\r'.includes(this.text[this.at] ?? '.')) this.at++;
  }

  private accept(mark: string): boolean {
    this.space();
    if (this.text[this.at] !== mark) return false;
    this.at++;
    return true;
  }

  private expect(mark: string): void {
    if (!this.accept(mark)) this.fail(`'${mark}'`);
  }

  private fail(wanted: string): never {
    const found = this.at < this.text.length ? quote(this.text.slice(this.at, this.at + 12)) : 'its end';
    return this.stop(`its header should have ${wanted} at character ${this.at}, found ${found}`);
  }
}

function isDType(text: string): text is SafeDType {
  return WIDTH.has(text);
}
