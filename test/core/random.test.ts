import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { integer, type Key, key, normal, permutation, philox, uniform, type Words } from '../../src/core/random.js';

const hex = (words: Words): string => words.map((w) => w.toString(16).padStart(8, '0')).join(' ');
const uint32 = fc.integer({ min: 0, max: 0xffffffff });
const anyKey = fc.record({ lo: uint32, hi: uint32 });

/** The definition once more, in arbitrary precision: slow, and short enough to check by eye against the paper. */
function philoxBig(counter: Words, k: Key): Words {
  const mask = 0xffffffffn;
  let [a, b, c, d] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = [BigInt(k.lo), BigInt(k.hi)];
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * a;
    const p1 = 0xcd9e8d57n * c;
    [a, b, c, d] = [(p1 >> 32n) ^ b ^ k0, p1 & mask, (p0 >> 32n) ^ d ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [Number(a), Number(b), Number(c), Number(d)];
}

test('philox gives the known answers published with Random123', () => {
  const f = 0xffffffff;
  assert.equal(hex(philox([0, 0, 0, 0], { lo: 0, hi: 0 })), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  assert.equal(hex(philox([f, f, f, f], { lo: f, hi: f })), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  assert.equal(
    hex(philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], { lo: 0xa4093822, hi: 0x299f31d0 })),
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

test('philox equals its definition in big integers', () => {
  fc.assert(
    fc.property(fc.tuple(uint32, uint32, uint32, uint32), anyKey, (c, k) => assert.deepEqual(philox(c, k), philoxBig(c, k))),
    {
      numRuns: 500,
    },
  );
});

test('key hashes the purpose with FNV-1a and splits the seed into two words', () => {
  // FNV-1a of '' is its offset basis and of 'foobar' 0xbf9cf968: published test vectors.
  const first = (fnv: number, lo: number, hi: number): Key => {
    const [a, b] = philoxBig([fnv, 0, 0, 0], { lo, hi });
    return { lo: a, hi: b };
  };
  assert.deepEqual(key(0, ''), first(0x811c9dc5, 0, 0));
  assert.deepEqual(key(7, 'foobar'), first(0xbf9cf968, 7, 0));
  assert.deepEqual(key(5 * 2 ** 32 + 3, 'foobar'), first(0xbf9cf968, 3, 5));
  assert.notDeepEqual(key(7, 'noise'), key(7, 'time'));
  assert.notDeepEqual(key(7, 'é'), key(7, 'e'));
});

test('uniform is a 24-bit fraction of the word at (element / 4, image)', () => {
  const images = fc.maxSafeNat();
  const elements = fc.integer({ min: 0, max: 2 ** 34 - 1 });
  fc.assert(
    fc.property(anyKey, images, elements, (k, image, element) => {
      const counter: Words = [Math.floor(element / 4), 0, image % 2 ** 32, Math.floor(image / 2 ** 32)];
      const word = philoxBig(counter, k)[element % 4]!;
      const u = uniform(k, image, element);
      assert.equal(u, Math.floor(word / 256) / 2 ** 24);
      assert.ok(u >= 0 && u < 1 && Math.fround(u) === u);
    }),
    { numRuns: 500 },
  );
});

test('normal is Box and Muller on neighbouring words', () => {
  const k = key(1, 'noise');
  for (const image of [0, 3, 2 ** 40 + 1]) {
    for (let i = 0; i < 4; i++) {
      const w = philox([i, 0, image % 2 ** 32, Math.floor(image / 2 ** 32)], k);
      for (const p of [0, 2]) {
        const r = Math.sqrt(-2 * Math.log(((w[p]! >>> 8) + 1) / 2 ** 24));
        const angle = 2 * Math.PI * ((w[p + 1]! >>> 8) / 2 ** 24);
        assert.equal(normal(k, image, 4 * i + p), r * Math.cos(angle));
        assert.equal(normal(k, image, 4 * i + p + 1), r * Math.sin(angle));
      }
    }
  }
});

test('moments of many draws are those of the distributions', () => {
  const n = 100_000;
  const k = key(42, 'moments');
  let [u1, u2, z1, z2, z4] = [0, 0, 0, 0, 0];
  for (let i = 0; i < n; i++) {
    const u = uniform(k, 0, i) - 0.5;
    const z = normal(k, 1, i);
    u1 += u / n;
    u2 += (u * u) / n;
    z1 += z / n;
    z2 += (z * z) / n;
    z4 += z ** 4 / n;
  }
  const near = (found: number, expected: number, deviation: number): void =>
    assert.ok(Math.abs(found - expected) < (5 * deviation) / Math.sqrt(n), `${found} is not near ${expected}`);
  near(u1, 0, Math.sqrt(1 / 12));
  near(u2, 1 / 12, Math.sqrt(1 / 180));
  near(z1, 0, 1);
  near(z2, 1, Math.sqrt(2));
  near(z4, 3, Math.sqrt(96));
});

test('integer is the exact floor of word * n / 2^32', () => {
  fc.assert(
    fc.property(anyKey, fc.nat(), fc.integer({ min: 1, max: 2 ** 32 - 1 }), (k, element, n) => {
      const word = philoxBig([Math.floor(element / 4), 0, 5, 0], k)[element % 4]!;
      assert.equal(integer(k, 5, element, n), Number((BigInt(word) * BigInt(n)) >> 32n));
    }),
    { numRuns: 500 },
  );
});

test('permutation is Fisher and Yates with the stated draws, and a permutation', () => {
  const k = key(3, 'order');
  for (const n of [0, 1, 2, 3, 7, 1000]) {
    const expected = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = integer(k, 9, i, i + 1);
      [expected[i], expected[j]] = [expected[j]!, expected[i]!];
    }
    assert.deepEqual([...permutation(k, 9, n)], expected);
    assert.deepEqual(
      [...permutation(k, 9, n)].sort((a, b) => a - b),
      Array.from({ length: n }, (_, i) => i),
    );
  }
  assert.notDeepEqual(permutation(k, 0, 100), permutation(k, 1, 100));
});

test('every order of four is about as likely as any other', () => {
  const k = key(8, 'order');
  const seen = new Map<string, number>();
  for (let epoch = 0; epoch < 24_000; epoch++) {
    const order = permutation(k, epoch, 4).join('');
    seen.set(order, (seen.get(order) ?? 0) + 1);
  }
  assert.equal(seen.size, 24);
  for (const [order, count] of seen) assert.ok(Math.abs(count - 1000) < 160, `${order} came ${count} times of about 1000`);
});

test('indices and seeds outside their range are refused, not wrapped', () => {
  const k = key(0, 'x');
  for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY]) {
    assert.throws(() => key(bad, 'x'), RangeError);
    assert.throws(() => uniform(k, bad, 0), RangeError);
    assert.throws(() => normal(k, 0, bad), RangeError);
    assert.throws(() => integer(k, 0, 0, bad), RangeError);
    assert.throws(() => permutation(k, 0, bad), RangeError);
  }
  assert.throws(() => uniform(k, 0, 2 ** 34), RangeError);
  assert.throws(() => integer(k, 0, 0, 0), RangeError);
});
