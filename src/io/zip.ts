/**
 * Zip archives, read with suspicion: every size is checked against the file before memory is taken, and contents against their checksums.
 * The directory at the end is what counts. `npz.ts` and `torchscript.ts` say what is inside.
 */
import zlib from 'node:zlib';
import type { OpenFile } from './disk.js';

/** Signatures of the format's records, and the value of a 32-bit field whose truth stands in a 64-bit one. */
export const LOCAL = 0x04034b50;
export const CENTRAL = 0x02014b50;
export const END = 0x06054b50;
export const END64 = 0x06064b50;
export const LOCATOR64 = 0x07064b50;
export const FULL = 0xffffffff;
const MAX_DIRECTORY = 2 ** 24;
/** Deflate cannot shrink by more, so a larger claim is a lie. */
const MAX_RATIO = 1032;

/** Throws the caller's error for a file with this problem. */
export type Fail = (problem: string) => never;

export interface ZipEntry {
  readonly name: string;
  /** 0 stored, 8 deflated. */
  readonly method: number;
  /** CRC-32 of the contents. */
  readonly sum: number;
  /** Bytes in the file, and once unpacked. */
  readonly packed: number;
  readonly size: number;
  /** Where its local header begins. */
  readonly offset: number;
}

export interface Zip {
  /** By name, in the order of the directory. */
  readonly entries: ReadonlyMap<string, ZipEntry>;
  /** An entry's bytes, checked against its checksum; perhaps a part of a longer buffer. */
  unpack(entry: ZipEntry): Uint8Array<ArrayBuffer>;
  /** Some bytes of an entry that is stored (method 0), not checked: of entries that are larger than memory. */
  part(entry: ZipEntry, position: number, length: number): Uint8Array<ArrayBuffer>;
}

type Slice = (position: number, length: number) => DataView<ArrayBuffer>;

/** Reads the directory of an open file, which must stay open as long as entries are unpacked. */
export function openZip(file: OpenFile, fail: Fail): Zip {
  const slice: Slice = (position, length) => {
    if (!(position >= 0 && length >= 0 && position + length <= file.size)) fail('it is cut off');
    return new DataView(file.read(position, length).buffer);
  };
  return {
    entries: directoryOf(file.size, slice, fail),
    unpack: (entry) => unpack(entry, slice, fail),
    part: (entry, position, length) => {
      if (entry.method !== 0 || position + length > entry.size) fail(`its entry ${JSON.stringify(entry.name)} has no such part`);
      return new Uint8Array(slice(startOf(entry, slice, fail) + position, length).buffer);
    },
  };
}

function directoryOf(fileSize: number, slice: Slice, fail: Fail): Map<string, ZipEntry> {
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
  const entries = new Map<string, ZipEntry>();
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
    if (entries.has(entry.name)) fail(`it has the entry ${JSON.stringify(entry.name)} twice`);
    entries.set(entry.name, entry);
    packed += entry.packed;
    p = next;
  }
  // Entries that share bytes are how a small archive unpacks to a huge one.
  if (packed > fileSize) fail('its entries claim more bytes than it has');
  return entries;
}

function entryAt(table: DataView<ArrayBuffer>, p: number, nameLength: number, extraLength: number, fail: Fail): ZipEntry {
  let name = '';
  try {
    name = new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array(table.buffer, p + 46, nameLength));
  } catch {
    fail('the name of an entry is not UTF-8');
  }
  if (table.getUint16(p + 8, true) & 1) fail(`its entry ${JSON.stringify(name)} is encrypted`);
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
    name,
    method: table.getUint16(p + 10, true),
    sum: table.getUint32(p + 16, true),
    size: values[0]!,
    packed: values[1]!,
    offset: values[2]!,
  };
}

/** Where the contents of an entry begin. */
function startOf({ name, method, packed, size, offset }: ZipEntry, slice: Slice, fail: Fail): number {
  const quoted = JSON.stringify(name);
  const local = slice(offset, 30);
  if (local.getUint32(0, true) !== LOCAL) fail(`its entry ${quoted} is not where the directory says`);
  if (method === 0 ? packed !== size : method !== 8) fail(`its entry ${quoted} is packed in an unknown way (method ${method})`);
  return offset + 30 + local.getUint16(26, true) + local.getUint16(28, true);
}

function unpack(entry: ZipEntry, slice: Slice, fail: Fail): Uint8Array<ArrayBuffer> {
  const { name, method, sum, packed, size } = entry;
  const quoted = JSON.stringify(name);
  const start = startOf(entry, slice, fail);
  if (size > packed * MAX_RATIO) fail(`its entry ${quoted} claims to unpack from ${packed} bytes to ${size}`);
  let bytes = new Uint8Array(slice(start, packed).buffer);
  if (method === 8) {
    try {
      const inflated = zlib.inflateRawSync(bytes, { maxOutputLength: Math.max(1, size) });
      bytes = new Uint8Array(inflated.buffer as ArrayBuffer, inflated.byteOffset, inflated.byteLength);
    } catch {
      fail(`its entry ${quoted} does not unpack to ${size} bytes`);
    }
  }
  if (bytes.byteLength !== size) fail(`its entry ${quoted} does not unpack to ${size} bytes`);
  if (crc32(bytes, 0) !== sum) fail(`its entry ${quoted} is damaged: its checksum differs`);
  return bytes;
}

function long(view: DataView, at: number, fail: Fail): number {
  const value = view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
  return Number.isSafeInteger(value) ? value : fail('it claims a size beyond all files');
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

/** Zip's checksum, continued from `before`. Node's own, which 20.15 brought, forgets `before` when there are no bytes. */
export function crc32(bytes: Uint8Array, before: number): number {
  if (bytes.byteLength === 0) return before;
  return (zlib as Partial<typeof zlib>).crc32?.(bytes, before) ?? tableCrc32(bytes, before);
}

/** The same in plain JavaScript. */
export function tableCrc32(bytes: Uint8Array, before: number): number {
  let value = ~before;
  for (let i = 0; i < bytes.length; i++) value = CRC_TABLE[(value ^ bytes[i]!) & 255]! ^ (value >>> 8);
  return ~value >>> 0;
}
