/**
 * Arrays in `.npz` files (a zip of `.npy`, as NumPy's `savez` writes and `load` reads): sample sets and reference statistics of
 * evaluators. Written uncompressed and deterministic; read with the same suspicion as weights: every size is checked against the file
 * before memory is taken, checksums are verified, and object arrays (pickles) do not exist here.
 */
import zlib from 'node:zlib';
import { FailureError } from '../core/errors.js';
import { type Disk, disk as realDisk } from './disk.js';

/** A file is not an archive of plain arrays, or arrays cannot be written as given. */
export class NpzError extends FailureError {}

export type NpzArray = { readonly shape: readonly number[] } & (
  | { readonly dtype: 'uint8'; readonly data: Uint8Array }
  | { readonly dtype: 'float32'; readonly data: Float32Array }
  | { readonly dtype: 'float64'; readonly data: Float64Array }
  | { readonly dtype: 'int64'; readonly data: BigInt64Array }
);

const TYPES = {
  uint8: { descr: '|u1', width: 1, view: Uint8Array },
  float32: { descr: '<f4', width: 4, view: Float32Array },
  float64: { descr: '<f8', width: 8, view: Float64Array },
  int64: { descr: '<i8', width: 8, view: BigInt64Array },
} as const;

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const LOCATOR64 = 0x07064b50;
const FULL = 0xffffffff;
const MIDNIGHT_1980 = 0x00210000; // the zip format's first date, so that equal arrays give equal files
const MAX_DIRECTORY = 2 ** 24;
/** Deflate cannot shrink by more, so a larger claim is a lie. */
const MAX_RATIO = 1032;

/**
 * Writes arrays, row-major, under their names (without `.npy`), atomically. Files and arrays above 4 GiB get the format's 64-bit fields.
 * @throws NpzError if a shape does not fit its data; DiskError if it cannot be written, and then an old file stands
 */
export function writeNpz(path: string, arrays: ReadonlyMap<string, NpzArray>, disk: Disk = realDisk): void {
  for (const [name, { shape, data }] of arrays) {
    if (product(shape) !== data.length)
      throw new NpzError(`cannot write array ${name}: ${data.length} values do not fill the shape [${shape}]`);
    if (name === '' || name.includes('\0')) throw new NpzError(`cannot write an array under the name ${JSON.stringify(name)}`);
  }
  disk.writeFileAtomic(path, zip(arrays));
}

function* zip(arrays: ReadonlyMap<string, NpzArray>): Generator<Uint8Array> {
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const [name, array] of arrays) {
    const file = new TextEncoder().encode(`${name}.npy`);
    const head = npyHeader(array);
    const body = new Uint8Array(array.data.buffer, array.data.byteOffset, array.data.byteLength);
    const size = head.byteLength + body.byteLength;
    const sum = crc32(body, crc32(head, 0));
    // Version 4.5 for 64-bit fields; flag 11: the name is UTF-8; method 0: stored.
    const common = [u16(45), u16(0x800), u16(0), u32(MIDNIGHT_1980), u32(sum), u32(FULL), u32(FULL), u16(file.byteLength)];
    const local = join(u32(LOCAL), ...common, u16(20), file, u16(1), u16(16), u64(size), u64(size));
    directory.push(
      // Made by version 4.5 on Unix (3), a regular file with rights 0644.
      join(
        ...[u32(CENTRAL), u16(0x032d), ...common, u16(28), u16(0), u16(0), u16(0), u32(0o100644 * 65536), u32(FULL)],
        ...[file, u16(1), u16(24), u64(size), u64(size), u64(offset)],
      ),
    );
    offset += local.byteLength + size;
    yield local;
    yield head;
    yield body;
  }
  const table = join(...directory);
  const count = directory.length;
  yield table;
  yield join(
    ...[u32(END64), u64(44), u16(0x032d), u16(45), u32(0), u32(0), u64(count), u64(count), u64(table.byteLength), u64(offset)],
    ...[u32(LOCATOR64), u32(0), u64(offset + table.byteLength), u32(1)],
    ...[u32(END), u16(0), u16(0), u16(0xffff), u16(0xffff), u32(FULL), u32(FULL), u16(0)],
  );
}

/** Version 1.0 of NumPy's header: a Python dictionary, padded so that the data starts at a multiple of 64. */
function npyHeader({ dtype, shape }: NpzArray): Uint8Array {
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const dict = `{'descr': '${TYPES[dtype].descr}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64 - 10;
  return join(
    Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0),
    u16(length),
    new TextEncoder().encode(`${dict.padEnd(length - 1)}\n`),
  );
}

/**
 * Reads arrays from a file, stored or deflated, in the order of its directory.
 * @param names the ones wanted, without `.npy`; all if not given
 * @throws NpzError saying what is wrong with the file, also for element types other than uint8, float32, float64, int64;
 *   DiskError if it cannot be read
 */
export function readNpz(path: string, names?: readonly string[], disk: Disk = realDisk): Map<string, NpzArray> {
  const fail = (problem: string): never => {
    throw new NpzError(`${path} is not a valid .npz file: ${problem}`);
  };
  const file = disk.open(path);
  try {
    const slice = (position: number, length: number): DataView<ArrayBuffer> => {
      if (!(position >= 0 && length >= 0 && position + length <= file.size)) fail('it is cut off');
      return new DataView(file.read(position, length).buffer);
    };
    const entries = directoryOf(file.size, slice, fail);
    const arrays = new Map<string, NpzArray>();
    for (const name of names ?? entries.keys()) {
      const entry = entries.get(name);
      if (!entry) throw new NpzError(`${path} has no array ${JSON.stringify(name)}; it has ${[...entries.keys()].join(', ') || 'none'}`);
      arrays.set(
        name,
        parseNpy(unpack(entry, slice, fail), (problem) => fail(`array ${JSON.stringify(name)}: ${problem}`)),
      );
    }
    return arrays;
  } finally {
    file.close();
  }
}

type Fail = (problem: string) => never;
type Slice = (position: number, length: number) => DataView<ArrayBuffer>;

interface Entry {
  readonly name: string;
  readonly method: number;
  readonly sum: number;
  readonly packed: number;
  readonly size: number;
  readonly offset: number;
}

/** The archive's entries by name without `.npy`. The directory at the end is what counts; local headers are only skipped. */
function directoryOf(fileSize: number, slice: Slice, fail: Fail): Map<string, Entry> {
  const tailStart = Math.max(0, fileSize - 22 - 0xffff); // an archive may end with a comment
  const tail = slice(tailStart, fileSize - tailStart);
  let at = tail.byteLength - 22;
  while (at >= 0 && tail.getUint32(at, true) !== END) at--;
  if (at < 0) fail('it has no zip directory');
  let count = tail.getUint16(at + 10, true);
  let length = tail.getUint32(at + 12, true);
  let start = tail.getUint32(at + 16, true);
  if (at >= 20 && tail.getUint32(at - 20, true) === LOCATOR64) {
    const end = slice(long(tail, at - 12, fail), 56);
    if (end.getUint32(0, true) !== END64) fail('its 64-bit directory is not where it should be');
    [count, length, start] = [long(end, 32, fail), long(end, 40, fail), long(end, 48, fail)];
  }
  if (length > MAX_DIRECTORY) fail(`its directory claims ${length} bytes`);
  const table = slice(start, length);
  const entries = new Map<string, Entry>();
  let packed = 0;
  let p = 0;
  for (let i = 0; i < count; i++) {
    if (p + 46 > length || table.getUint32(p, true) !== CENTRAL) fail('its directory is damaged');
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((field) => table.getUint16(p + field, true)) as [
      number,
      number,
      number,
    ];
    const next = p + 46 + nameLength + extraLength + commentLength;
    if (next > length) fail('its directory is damaged');
    const entry = entryAt(table, p, nameLength, extraLength, fail);
    if (entries.has(entry.name)) fail(`it has the array ${JSON.stringify(entry.name)} twice`);
    entries.set(entry.name, entry);
    packed += entry.packed;
    p = next;
  }
  // Entries that share bytes are how a small archive unpacks to a huge one.
  if (packed > fileSize) fail('its entries claim more bytes than it has');
  return entries;
}

function entryAt(table: DataView<ArrayBuffer>, p: number, nameLength: number, extraLength: number, fail: Fail): Entry {
  let file = '';
  try {
    file = new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array(table.buffer, p + 46, nameLength));
  } catch {
    fail('the name of an entry is not UTF-8');
  }
  if (!file.endsWith('.npy')) fail(`its entry ${JSON.stringify(file)} is not an array (.npy)`);
  if (table.getUint16(p + 8, true) & 1) fail(`its entry ${JSON.stringify(file)} is encrypted`);
  // The 64-bit fields stand in an extra field, in this order, those only whose 32-bit field is full.
  const [size, packed, offset] = [24, 20, 42].map((field) => table.getUint32(p + field, true)) as [number, number, number];
  const values = [size, packed, offset];
  const end = p + 46 + nameLength + extraLength;
  for (let q = p + 46 + nameLength; q + 4 <= end; q += 4 + table.getUint16(q + 2, true)) {
    if (table.getUint16(q, true) !== 1) continue;
    const fieldEnd = Math.min(end, q + 4 + table.getUint16(q + 2, true));
    let r = q + 4;
    values.forEach((value, i) => {
      if (value !== FULL || r + 8 > fieldEnd) return;
      values[i] = long(table, r, fail);
      r += 8;
    });
  }
  return {
    name: file.slice(0, -4),
    method: table.getUint16(p + 10, true),
    sum: table.getUint32(p + 16, true),
    size: values[0]!,
    packed: values[1]!,
    offset: values[2]!,
  };
}

/** An entry's bytes, checked against its checksum. */
function unpack(entry: Entry, slice: Slice, fail: Fail): Uint8Array<ArrayBuffer> {
  const { name, method, sum, packed, size, offset } = entry;
  const quoted = JSON.stringify(name);
  const local = slice(offset, 30);
  if (local.getUint32(0, true) !== LOCAL) fail(`array ${quoted} is not where the directory says`);
  if (method === 0 ? packed !== size : method !== 8) fail(`array ${quoted} is packed in an unknown way (method ${method})`);
  if (size > packed * MAX_RATIO) fail(`array ${quoted} claims to unpack from ${packed} bytes to ${size}`);
  let bytes = new Uint8Array(slice(offset + 30 + local.getUint16(26, true) + local.getUint16(28, true), packed).buffer);
  if (method === 8) {
    try {
      const inflated = zlib.inflateRawSync(bytes, { maxOutputLength: Math.max(1, size) });
      bytes = new Uint8Array(inflated.buffer as ArrayBuffer, inflated.byteOffset, inflated.byteLength);
    } catch {
      fail(`array ${quoted} does not unpack to ${size} bytes`);
    }
  }
  if (bytes.byteLength !== size) fail(`array ${quoted} does not unpack to ${size} bytes`);
  if (crc32(bytes, 0) !== sum) fail(`array ${quoted} is damaged: its checksum differs`);
  return bytes;
}

/** One array out of its `.npy` bytes. */
function parseNpy(bytes: Uint8Array<ArrayBuffer>, fail: Fail): NpzArray {
  if (bytes.byteLength < 12 || String.fromCharCode(...bytes.subarray(0, 6)) !== '\x93NUMPY') fail('it does not start as a .npy');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6]!;
  if (version < 1 || version > 3) fail(`its .npy version ${version} is unknown`);
  const start = version === 1 ? 10 : 12;
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > 65535 || start + length > bytes.byteLength) fail('its header is cut off or too long');
  const header = new TextDecoder('latin1').decode(bytes.subarray(start, start + length));
  // The three keys in the order in which NumPy has always written them.
  const pattern = /^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,16}(?:, ?\d{1,16})*,?)?)\),? ?\} *\n$/;
  const [, descr = '', fortran = '', tuple = ''] =
    pattern.exec(header) ?? fail(`its header describes no plain array: ${JSON.stringify(header.trim().slice(0, 80))}`);
  const shape = tuple.split(',').flatMap((text) => (text.trim() === '' ? [] : [Number(text)]));
  if (fortran === 'True' && shape.length > 1) fail('it is stored by columns; save it again after numpy.ascontiguousarray');
  const dtype = (Object.keys(TYPES) as (keyof typeof TYPES)[]).find((type) => TYPES[type].descr === descr);
  if (!dtype) return fail(`its element type ${descr} is not supported; save it as uint8, float32, float64 or int64`);
  const count = product(shape);
  const { width, view: View } = TYPES[dtype];
  if (count * width !== bytes.byteLength - start - length)
    fail(`its shape [${shape}] takes ${count * width} bytes and it has ${bytes.byteLength - start - length}`);
  // A copy, since the data may lie at an offset that the element type does not divide.
  return { dtype, shape, data: new View(bytes.slice(start + length).buffer) } as NpzArray;
}

/** Elements of a shape; NaN where it is none or its size is not exact as a number, which equals no count. */
function product(shape: readonly number[]): number {
  const count = shape.reduce((a, b) => (Number.isSafeInteger(b) && b >= 0 ? a * b : Number.NaN), 1);
  return Number.isSafeInteger(count) ? count : Number.NaN;
}

function long(view: DataView, at: number, fail: Fail): number {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  return Number.isSafeInteger(value) ? value : fail('it claims a size beyond all files');
}

function u16(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8);
}

function u32(value: number): Uint8Array {
  return Uint8Array.of(value, value >>> 8, value >>> 16, value >>> 24);
}

function u64(value: number): Uint8Array {
  return join(u32(value % 2 ** 32), u32(Math.floor(value / 2 ** 32)));
}

function join(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** Zip's checksum, continued from `before`. Node's own, which 20.15 brought, forgets `before` when there are no bytes. */
function crc32(bytes: Uint8Array, before: number): number {
  if (bytes.byteLength === 0) return before;
  return (zlib as Partial<typeof zlib>).crc32?.(bytes, before) ?? tableCrc32(bytes, before);
}

/** The same in plain JavaScript. */
export function tableCrc32(bytes: Uint8Array, before: number): number {
  let value = ~before;
  for (let i = 0; i < bytes.length; i++) value = CRC_TABLE[(value ^ bytes[i]!) & 255]! ^ (value >>> 8);
  return ~value >>> 0;
}
