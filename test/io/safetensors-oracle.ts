/**
 * What a safetensors file holds, said a second time and in another way than src/io/safetensors.ts does: by JSON.parse and by painting the
 * data's bytes, without a scanner, without sorting, without care for cost.
 */
import { isUtf8 } from 'node:buffer';
import type { Safetensors } from '../../src/io/safetensors.js';

const WIDTHS = { F64: 8, I64: 8, F32: 4, I32: 4, BF16: 2, F16: 2, I16: 2, I8: 1, U8: 1, BOOL: 1 };

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The content, or undefined for a file that must be refused. For small files: it knows no limit of names. */
export function oracle(bytes: Uint8Array): Safetensors | undefined {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (file.length < 10) return undefined;
  const claimed = file.readBigUInt64LE();
  if (claimed < 2n || claimed > 2n ** 24n || claimed > BigInt(file.length - 8)) return undefined;
  const json = file.subarray(8, 8 + Number(claimed));
  const data = file.subarray(8 + Number(claimed));
  if (!isUtf8(json)) return undefined;
  const header = strictJson(json.toString());
  if (header === undefined) return undefined;

  const found: Safetensors = { tensors: new Map(), metadata: new Map() };
  const covered = new Uint8Array(data.length);
  const spans: [begin: number, end: number][] = [];
  for (const [name, value] of Object.entries(header)) {
    if (!isObject(value) || !paired(name)) return undefined;
    if (name === '__metadata__') {
      for (const [key, text] of Object.entries(value)) {
        if (typeof text !== 'string' || !paired(key) || !paired(text)) return undefined;
        found.metadata.set(key, text);
      }
      continue;
    }
    const { dtype, shape, data_offsets: offsets, ...rest } = value;
    if (Object.keys(rest).length > 0 || typeof dtype !== 'string' || !Object.hasOwn(WIDTHS, dtype)) return undefined;
    if (!isNumbers(shape) || shape.length > 32 || !isNumbers(offsets) || offsets.length !== 2) return undefined;
    const width = BigInt(WIDTHS[dtype as keyof typeof WIDTHS]);
    if (shape.reduce((n, extent) => n * BigInt(extent || 1), width) >= 2n ** 53n) return undefined;
    const [begin, end] = offsets as [number, number];
    if (BigInt(end) - BigInt(begin) !== shape.reduce((n, extent) => n * BigInt(extent), width)) return undefined;
    if (end > data.length) return undefined;
    for (let i = begin; i < end; i++) covered[i]!++;
    spans.push([begin, end]);
    const values = data.subarray(begin, end);
    if (dtype === 'BOOL' && values.some((byte) => byte > 1)) return undefined;
    found.tensors.set(name, { dtype: dtype as keyof typeof WIDTHS, shape, data: values });
  }
  if (covered.some((times) => times !== 1)) return undefined;
  // An empty tensor covers nothing, yet lies between two others and in none.
  const edges = new Set([0, ...spans.filter(([begin, end]) => begin < end).map(([, end]) => end)]);
  return spans.every(([begin]) => edges.has(begin)) ? found : undefined;
}

/** An object of JSON without what JSON.parse forgives or hides; undefined for anything else. */
function strictJson(text: string): { [key: string]: Json } | undefined {
  if (!/^\{.*\} *$/su.test(text)) return undefined;
  let value: Json;
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  const outside = text.replace(/"(?:[^"\\]|\\.)*"/gsu, '"');
  if (!/^[{}[\]:,"0-9 \t\r\n]*$/.test(outside)) return undefined;
  // Of keys that are equal JSON.parse keeps one.
  return isObject(value) && countKeys(value) === outside.split(':').length - 1 ? value : undefined;
}

function countKeys(value: Json): number {
  if (Array.isArray(value)) return value.reduce((n: number, item) => n + countKeys(item), 0);
  if (!isObject(value)) return 0;
  return Object.values(value).reduce((n: number, item) => n + 1 + countKeys(item), 0);
}

function isObject(value: Json | undefined): value is { [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isNumbers(value: Json | undefined): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item));
}

/** Every surrogate has its other half: only then the text survives UTF-8. */
function paired(text: string): boolean {
  return Buffer.from(text).toString() === text;
}

/** Whether both hold the same, to the byte; the order of the maps is free. */
export function same(a: Safetensors, b: Safetensors): boolean {
  if (a.tensors.size !== b.tensors.size || a.metadata.size !== b.metadata.size) return false;
  for (const [key, text] of a.metadata) if (b.metadata.get(key) !== text) return false;
  for (const [name, one] of a.tensors) {
    const other = b.tensors.get(name);
    if (other === undefined || one.dtype !== other.dtype || one.shape.join() !== other.shape.join()) return false;
    if (Buffer.compare(one.data, other.data) !== 0) return false;
  }
  return true;
}
