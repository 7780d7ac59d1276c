/**
 * Arrays in `.npz` files (a zip of `.npy`, as NumPy's `savez` writes and `load` reads): sample sets and reference statistics of
 * evaluators. Written uncompressed and deterministic; read with the same suspicion as weights: every size is checked against the file
 * before memory is taken, checksums are verified, and object arrays (pickles) do not exist here.
 */
import { FailureError } from '../core/errors.js';
import { type Disk, disk as realDisk } from './disk.js';
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
  return withArchive(path, disk, (zip, entries, fail) => {
    const arrays = new Map<string, NpzArray>();
    for (const name of names ?? entries.keys()) {
      const entry = entries.get(name);
      if (!entry) throw new NpzError(`${path} has no array ${JSON.stringify(name)}; it has ${[...entries.keys()].join(', ') || 'none'}`);
      arrays.set(
        name,
        parseNpy(zip.unpack(entry), (problem) => fail(`array ${JSON.stringify(name)}: ${problem}`)),
      );
    }
    return arrays;
  });
}

/** The names of the arrays in a file, in the order of its directory; the arrays are not looked at. @throws NpzError, DiskError as `readNpz` */
export function npzNames(path: string, disk: Disk = realDisk): string[] {
  return withArchive(path, disk, (_, entries) => [...entries.keys()]);
}

/** Opens a file for as long as `use` takes. The entries' names are those of the arrays. */
function withArchive<T>(path: string, disk: Disk, use: (zip: Zip, entries: ReadonlyMap<string, ZipEntry>, fail: Fail) => T): T {
  const fail = (problem: string): never => {
    throw new NpzError(`${path} is not a valid .npz file: ${problem}`);
  };
  const file = disk.open(path);
  try {
    const zip = openZip(file, fail);
    const entries = new Map(
      [...zip.entries].map(([name, entry]) => [
        name.endsWith('.npy') ? name.slice(0, -4) : fail(`its entry ${JSON.stringify(name)} is not an array (.npy)`),
        entry,
      ]),
    );
    return use(zip, entries, fail);
  } finally {
    file.close();
  }
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
