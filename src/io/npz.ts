/**
 * Arrays in `.npz` files (a zip of `.npy`, as NumPy's `savez` writes and `load` reads): sample sets and reference statistics of
 * evaluators. Written uncompressed and deterministic; read with the same suspicion as weights: every size is checked against the file
 * before memory is taken, checksums are verified, and object arrays (pickles) do not exist here.
 */
import { FailureError } from '../core/errors.js';
import { type Disk, type OpenFile, disk as realDisk } from './disk.js';
import { CENTRAL, crc32, END, END64, type Fail, FULL, LOCAL, LOCATOR64, openZip, type Zip, type ZipEntry } from './zip.js';

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

/** What to do with pictures that are not stored as such rows. */
const AS_BYTES =
  'Pictures are stored as whole numbers from 0 to 255: bring the values to that range, then pixels.round().clip(0, 255).astype(numpy.uint8)';
/** NumPy's headers take 128 bytes; what is longer is none. */
const MAX_HEADER = 65535;
const MIDNIGHT_1980 = 0x00210000; // the zip format's first date, so that equal arrays give equal files

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
  const file = disk.open(path);
  try {
    const { zip, entries, fail } = archive(path, file);
    const arrays = new Map<string, NpzArray>();
    for (const name of names ?? entries.keys()) {
      const bytes = zip.unpack(entries.get(name) ?? missing(path, name, entries));
      arrays.set(
        name,
        parseNpy(bytes, (problem) => fail(`array ${JSON.stringify(name)}: ${problem}`)),
      );
    }
    return arrays;
  } finally {
    file.close();
  }
}

/** The names of the arrays in a file, in the order of its directory; the arrays are not looked at. @throws NpzError, DiskError as `readNpz` */
export function npzNames(path: string, disk: Disk = realDisk): string[] {
  const file = disk.open(path);
  try {
    return [...archive(path, file).entries.keys()];
  } finally {
    file.close();
  }
}

/** An array of bytes, row by row: one row is all at one place of the first dimension. */
export interface NpzRows {
  readonly shape: readonly number[];
  /** Rows first, first + 1, ..., as many as `count`. @throws RangeError for rows that there are not; NpzError, DiskError */
  read(first: number, count: number): Uint8Array;
  close(): void;
}

/**
 * Opens an array of uint8 that may be larger than memory: 50,000 pictures of 256 px take 10 GB. A stored one is read piece by piece, and its
 * checksum verified when rows were read from the first to the last in order; a deflated one is unpacked here.
 * @throws NpzError as `readNpz`, for another element type, or for an array without rows; DiskError
 */
export function openNpzRows(path: string, name: string, disk: Disk = realDisk): NpzRows {
  const file = disk.open(path);
  try {
    const { zip, entries, fail } = archive(path, file);
    const entry = entries.get(name) ?? missing(path, name, entries);
    const wrong = (problem: string): never => fail(`array ${JSON.stringify(name)}: ${problem}`);
    const whole = entry.method === 0 ? undefined : zip.unpack(entry);
    const part = (position: number, length: number) => whole?.subarray(position, position + length) ?? zip.part(entry, position, length);
    const head = part(0, Math.min(entry.size, MAX_HEADER + 12));
    const { dtype, shape, start } = parseHeader(head, entry.size, wrong);
    const [rows = 0] = shape;
    const found = `${path}: array ${JSON.stringify(name)} holds no rows of uint8: ${dtype} [${shape}]`;
    if (dtype !== 'uint8') throw new NpzError(`${found}. ${AS_BYTES}`);
    if (rows === 0) throw new NpzError(found);
    const width = (entry.size - start) / rows;
    let [seen, sum] = [0, crc32(head.subarray(0, start), 0)];
    const read = (first: number, count: number): Uint8Array => {
      if (!(Number.isInteger(first) && Number.isInteger(count) && first >= 0 && count >= 0 && first + count <= rows))
        throw new RangeError(`rows ${first} to ${first + count} of ${rows}`);
      const bytes = part(start + first * width, count * width);
      if (!whole && first === seen) {
        sum = crc32(bytes, sum);
        seen += count;
        if (seen === rows && sum !== entry.sum) wrong('it is damaged: its checksum differs');
      }
      return bytes;
    };
    return { shape, read, close: () => file.close() };
  } catch (error) {
    file.close();
    throw error;
  }
}

type Entries = ReadonlyMap<string, ZipEntry>;

/** An open file as an archive. The entries' names are those of the arrays. */
function archive(path: string, file: OpenFile): { zip: Zip; entries: Entries; fail: Fail } {
  const fail = (problem: string): never => {
    throw new NpzError(`${path} is not a valid .npz file: ${problem}`);
  };
  const zip = openZip(file, fail);
  const named = [...zip.entries].map(
    ([name, entry]) =>
      [name.endsWith('.npy') ? name.slice(0, -4) : fail(`its entry ${JSON.stringify(name)} is not an array (.npy)`), entry] as const,
  );
  return { zip, entries: new Map(named), fail };
}

function missing(path: string, name: string, entries: Entries): never {
  throw new NpzError(`${path} has no array ${JSON.stringify(name)}; it has ${[...entries.keys()].join(', ') || 'none'}`);
}

/** One array out of its `.npy` bytes. */
function parseNpy(bytes: Uint8Array<ArrayBuffer>, fail: Fail): NpzArray {
  const { dtype, shape, start } = parseHeader(bytes, bytes.byteLength, fail);
  // A copy, since the data may lie at an offset that the element type does not divide.
  return { dtype, shape, data: new TYPES[dtype].view(bytes.slice(start).buffer) } as NpzArray;
}

interface Header {
  readonly dtype: NpzArray['dtype'];
  readonly shape: readonly number[];
  /** Where the data begin. */
  readonly start: number;
}

/** What the first bytes of a `.npy` of `size` bytes say; they must hold the whole header. */
function parseHeader(bytes: Uint8Array<ArrayBuffer>, size: number, fail: Fail): Header {
  if (bytes.byteLength < 12 || String.fromCharCode(...bytes.subarray(0, 6)) !== '\x93NUMPY') fail('it does not start as a .npy');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = bytes[6]!;
  if (version < 1 || version > 3) fail(`its .npy version ${version} is unknown`);
  const from = version === 1 ? 10 : 12;
  const length = version === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = from + length;
  if (length > MAX_HEADER || start > bytes.byteLength) fail('its header is cut off or too long');
  const header = new TextDecoder('latin1').decode(bytes.subarray(from, start));
  // The three keys in the order in which NumPy has always written them.
  const pattern = /^\{'descr': '([^']*)', 'fortran_order': (True|False), 'shape': \(((?:\d{1,16}(?:, ?\d{1,16})*,?)?)\),? ?\} *\n$/;
  const [, descr = '', fortran = '', tuple = ''] =
    pattern.exec(header) ?? fail(`its header describes no plain array: ${JSON.stringify(header.trim().slice(0, 80))}`);
  const shape = tuple.split(',').flatMap((text) => (text.trim() === '' ? [] : [Number(text)]));
  if (fortran === 'True' && shape.length > 1) fail('it is stored by columns; save it again after numpy.ascontiguousarray');
  const dtype = (Object.keys(TYPES) as (keyof typeof TYPES)[]).find((type) => TYPES[type].descr === descr);
  if (!dtype) return fail(`its element type ${descr} is not supported; save it as uint8, float32, float64 or int64`);
  const wanted = product(shape) * TYPES[dtype].width;
  if (wanted !== size - start) fail(`its shape [${shape}] takes ${wanted} bytes and it has ${size - start}`);
  return { dtype, shape, start };
}

/** Elements of a shape; NaN where it is none or its size is not exact as a number, which equals no count. */
function product(shape: readonly number[]): number {
  const count = shape.reduce((a, b) => (Number.isSafeInteger(b) && b >= 0 ? a * b : Number.NaN), 1);
  return Number.isSafeInteger(count) ? count : Number.NaN;
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
