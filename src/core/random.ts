/**
 * Randomness as a function, not a state: of (seed, purpose, global image index, element). Nothing has to be saved to resume a run, and one
 * batch draws what its micro-batches or its ranks would draw.
 *
 * The function is Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011). The native
 * operators `dsd::rand` and `dsd::randn` compute the same words, so a draw is the same wherever it is made.
 */

/** 64 bits as two uint32. */
export interface Key {
  readonly lo: number;
  readonly hi: number;
}

/** Four uint32, the least significant first. */
export type Words = readonly [number, number, number, number];

const M0 = 0xd2511f53;
const M1 = 0xcd9e8d57;
const W0 = 0x9e3779b9; // 2^32 times the golden ratio's fraction
const W1 = 0xbb67ae85; // 2^32 times the fraction of the square root of 3
const TWO_32 = 2 ** 32;
const UNIT = 2 ** -24;
/** Elements of one image: the block index, a quarter of it, must be a uint32. */
const MAX_ELEMENT = 2 ** 34 - 1;

/** The upper 32 bits of the product of two uint32, as int32. Halves of 16 bits keep every partial product inside 32 bits. */
function mulhi(a: number, b: number): number {
  const al = a & 0xffff;
  const ah = a >>> 16;
  const bl = b & 0xffff;
  const bh = b >>> 16;
  const lh = Math.imul(al, bh);
  const hl = Math.imul(ah, bl);
  const middle = (Math.imul(al, bl) >>> 16) + (lh & 0xffff) + (hl & 0xffff);
  return (Math.imul(ah, bh) + (lh >>> 16) + (hl >>> 16) + (middle >>> 16)) | 0;
}

/** The block last computed. One for the module: a draw allocates nothing, and JavaScript runs no two draws at once. */
const words = new Uint32Array(4);

function block(c0: number, c1: number, c2: number, c3: number, k0: number, k1: number): void {
  for (let round = 0; round < 10; round++) {
    const hi0 = mulhi(M0, c0);
    const lo0 = Math.imul(M0, c0);
    const hi1 = mulhi(M1, c2);
    const lo1 = Math.imul(M1, c2);
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 = (k0 + W0) | 0;
    k1 = (k1 + W1) | 0;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

/** Computes the block that holds the element of the image; the word is `words[element % 4]`. */
function draw(key: Key, image: number, element: number): void {
  if (!Number.isSafeInteger(image) || image < 0) throw new RangeError(`random: image must be a safe integer >= 0, got ${image}`);
  if (!Number.isInteger(element) || element < 0 || element > MAX_ELEMENT)
    throw new RangeError(`random: element must be an integer in [0, 2^34), got ${element}`);
  block(Math.floor(element / 4), 0, image >>> 0, Math.floor(image / TWO_32), key.lo, key.hi);
}

/** One block of Philox 4x32-10: four uint32 of a counter (each taken modulo 2^32) and a key. */
export function philox(counter: Words, key: Key): Words {
  block(counter[0], counter[1], counter[2], counter[3], key.lo, key.hi);
  return [words[0]!, words[1]!, words[2]!, words[3]!];
}

/**
 * The key of one purpose of randomness ('noise', 'order', ...) under a seed: words 0 and 1 of
 * philox((fnv1a32(purpose), 0, 0, 0), (seed mod 2^32, floor(seed / 2^32))), so that purposes and seeds are unrelated.
 * @param seed a safe integer >= 0
 * @param purpose any text, hashed as UTF-8
 * @throws RangeError for another seed
 */
export function key(seed: number, purpose: string): Key {
  if (!Number.isSafeInteger(seed) || seed < 0) throw new RangeError(`random: seed must be a safe integer >= 0, got ${seed}`);
  block(fnv1a32(purpose), 0, 0, 0, seed >>> 0, Math.floor(seed / TWO_32));
  return { lo: words[0]!, hi: words[1]! };
}

/** Fowler, Noll and Vo's hash FNV-1a, 32 bits. */
function fnv1a32(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash >>> 0;
}

/**
 * A number in [0, 1), a multiple of 2^-24: exact in float32, so that CPU, GPU and JavaScript agree to the bit.
 * @param image global index of the image, a safe integer >= 0
 * @param element row-major index inside the image, in [0, 2^34)
 * @throws RangeError for indices outside
 */
export function uniform(key: Key, image: number, element: number): number {
  draw(key, image, element);
  return (words[element % 4]! >>> 8) * UNIT;
}

/**
 * A standard normal number by Box and Muller's method; elements 2i and 2i + 1 share a radius. u1 is in (0, 1], so the logarithm is finite
 * and no value exceeds sqrt(48 ln 2), about 5.77.
 * @throws RangeError as `uniform`
 */
export function normal(key: Key, image: number, element: number): number {
  draw(key, image, element);
  const pair = element & 2;
  const u1 = ((words[pair]! >>> 8) + 1) * UNIT;
  const angle = 2 * Math.PI * ((words[pair + 1]! >>> 8) * UNIT);
  return Math.sqrt(-2 * Math.log(u1)) * (element % 2 === 0 ? Math.cos(angle) : Math.sin(angle));
}

/**
 * An integer in [0, n): floor(word * n / 2^32), exactly. The bias is below n / 2^32.
 * @param n an integer in [1, 2^32)
 * @throws RangeError for another n, or as `uniform`
 */
export function integer(key: Key, image: number, element: number, n: number): number {
  if (!Number.isInteger(n) || n < 1 || n >= TWO_32) throw new RangeError(`random: n must be an integer in [1, 2^32), got ${n}`);
  draw(key, image, element);
  return mulhi(words[element % 4]!, n) >>> 0;
}

/**
 * A permutation of 0 ... n - 1 for an epoch (Fisher and Yates, from the last place down; the draw for place i is
 * `integer(key, epoch, i, i + 1)`).
 * @param n an integer in [0, 2^32)
 * @throws RangeError for another n or epoch
 */
export function permutation(key: Key, epoch: number, n: number): Uint32Array {
  if (!Number.isInteger(n) || n < 0 || n >= TWO_32) throw new RangeError(`random: n must be an integer in [0, 2^32), got ${n}`);
  const order = new Uint32Array(n);
  for (let i = 0; i < n; i++) order[i] = i;
  for (let i = n - 1, ready = -1; i > 0; i--) {
    const wanted = Math.floor(i / 4);
    if (wanted !== ready) draw(key, epoch, i); // one block serves four places
    ready = wanted;
    const j = mulhi(words[i % 4]!, i + 1) >>> 0;
    const moved = order[i]!;
    order[i] = order[j]!;
    order[j] = moved;
  }
  return order;
}
