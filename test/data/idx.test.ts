import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { hasIdxFiles, openFashionMnist, openIdx, parseIdx, readIdx } from '../../src/data/idx.js';
import { shapeOf } from '../../src/data/open.js';
import { idx, put, temporaryFolder } from './corpus.js';

const GREY = { size: 28, channels: 1 } as const;

/** Four files of pictures whose bytes count on, with labels 0 1 2 0 1 2 ... */
function mnist(folder: string, { train = 6, held = 3, side = 28, pack = false } = {}): string {
  for (const [part, count] of [
    ['train', train],
    ['t10k', held],
  ] as const) {
    const images = idx(
      [count, side, side],
      Uint8Array.from({ length: count * side * side }, (_, i) => 1 + ((i * 7) % 255)),
    );
    const labels = idx(
      [count],
      Uint8Array.from({ length: count }, (_, i) => i % 3),
    );
    put(join(folder, `${part}-images-idx3-ubyte${pack ? '.gz' : ''}`), pack ? gzipSync(images) : images);
    put(join(folder, `${part}-labels-idx1-ubyte${pack ? '.gz' : ''}`), pack ? gzipSync(labels) : labels);
  }
  return folder;
}

function assertRefused(action: () => unknown, kind: typeof FailureError | typeof UsageError, message: RegExp): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof kind, String(error));
    assert.match(error.message, message);
    return true;
  });
}

test('train- files are the training part, t10k- files the held-out one, plain or packed', async (t) => {
  for (const pack of [false, true]) {
    const folder = mnist(temporaryFolder(t), { pack });
    assert.ok(hasIdxFiles(folder));
    const { train, heldOut } = openIdx(folder, GREY);
    assert.equal(train.length, 6);
    assert.equal(heldOut.length, 3);
    assert.deepEqual(train.classes, ['0', '1', '2']);
    assert.deepEqual(
      [0, 1, 2, 3].map((i) => train.label(i)),
      [0, 1, 2, 0],
    );
    assert.deepEqual(
      [...train.peek(2)!.subarray(0, 4)],
      [0, 1, 2, 3].map((i) => 1 + (((2 * 784 + i) * 7) % 255)),
    );
    assert.deepEqual(await train.load(5), train.peek(5));
    assert.match(heldOut.path(1), /picture 1 of .*t10k-images/);
  }
  assert.ok(!hasIdxFiles(temporaryFolder(t)));
});

test('a folder of them is known to be grey before it is read', (t) => {
  const usual = { channels: 3, classes: 10 } as const;
  assert.deepEqual(shapeOf(mnist(temporaryFolder(t)), usual), { channels: 1, classes: 10 });
  assert.deepEqual(shapeOf(temporaryFolder(t), usual), usual);
});

test('28 x 28 stands in the middle of 32 x 32 zeros', (t) => {
  const folder = mnist(temporaryFolder(t));
  const plain = openIdx(folder, GREY).train;
  const padded = openIdx(folder, { size: 32, channels: 1 }).train;
  assert.equal(padded.size, 32);
  for (const i of [0, 5]) {
    const from = plain.peek(i)!;
    const to = padded.peek(i)!;
    for (let y = 0; y < 32; y++) {
      for (let x = 0; x < 32; x++) {
        const inside = y >= 2 && y < 30 && x >= 2 && x < 30;
        assert.equal(to[y * 32 + x], inside ? from[(y - 2) * 28 + x - 2] : 0);
      }
    }
  }
});

test('a size that is too small, or colour, is wrong usage', (t) => {
  const folder = mnist(temporaryFolder(t));
  assertRefused(
    () => openIdx(folder, { size: 16, channels: 1 }),
    UsageError,
    /28 x 28 pixels, and 16 x 16 were asked for. Use a size of at least 28/,
  );
  assertRefused(() => openIdx(folder, { size: 32, channels: 3 }), UsageError, /grey, and 3 channels/);
});

test('bytes that are not IDX are refused with what was found', () => {
  const good = idx([2, 3], Uint8Array.of(1, 2, 3, 4, 5, 6));
  assert.deepEqual([...parseIdx(good, 2, 'a').data], [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(parseIdx(good, 2, 'a').shape, [2, 3]);
  const refused = (bytes: Uint8Array, dimensions: number, message: RegExp): void =>
    assertRefused(() => parseIdx(bytes, dimensions, 'some/path'), FailureError, message);
  refused(good, 3, /some\/path .*begins with 0x00000802 where 0x00000803 \(unsigned bytes, 3 dimensions\)|header alone/);
  refused(idx([1, 1, 1], Uint8Array.of(1)), 1, /begins with 0x00000803 where 0x00000801 \(unsigned bytes, 1 dimension\)/);
  refused(good.subarray(0, -1), 2, /says 2 x 3 = 6 values, and 5 follow: it is cut off/);
  refused(Buffer.concat([good, Buffer.of(0)]), 2, /and 7 follow: there is something else/);
  refused(good.subarray(0, 9), 2, /9 bytes, and its header alone needs 12/);
  refused(new Uint8Array(0), 1, /0 bytes/);
  refused(Buffer.from('<html><body>Not found</body></html>'), 3, /begins with 0x3c68746d/);
  const float = idx([2, 3], new Uint8Array(24));
  float[2] = 0x0d;
  refused(float, 2, /0x00000d02/);
  const vast = idx([0xffffffff, 0xffffffff, 0xffffffff], Uint8Array.of(1, 2));
  refused(vast, 3, /4294967295 x 4294967295 x 4294967295 = .*cut off/);
});

test('any other bytes are refused or read, never anything else', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), fc.boolean(), fc.integer({ min: 1, max: 3 }), (tail, prefixed, dimensions) => {
      const bytes = prefixed ? Buffer.concat([Buffer.of(0, 0, 8, dimensions), tail]) : tail;
      try {
        const { shape, data } = parseIdx(bytes, dimensions, 'p');
        assert.equal(
          shape.reduce((a, b) => a * b, 1),
          data.length,
        );
      } catch (error) {
        assert.ok(error instanceof FailureError, String(error));
      }
    }),
    { numRuns: 500 },
  );
});

test('a damaged or cut gzip is refused by its name', (t) => {
  const folder = temporaryFolder(t);
  const packed = gzipSync(
    idx(
      [500],
      new Uint8Array(500).map((_, i) => (i * i) % 251),
    ),
  );
  const cut = put(join(folder, 'cut.gz'), packed.subarray(0, packed.length >> 1));
  assertRefused(() => readIdx(cut, 1), FailureError, /cannot unpack .*cut\.gz/);
  packed[packed.length >> 1]! ^= 0xff;
  assertRefused(() => readIdx(put(join(folder, 'bad.gz'), packed), 1), FailureError, /cannot unpack .*bad\.gz/);
  assertRefused(() => readIdx(join(folder, 'gone.gz'), 1), FailureError, /gone\.gz.*no such file/);
});

test('files that are absent, empty or do not belong together are refused', (t) => {
  const folder = mnist(temporaryFolder(t));
  put(join(folder, 't10k-labels-idx1-ubyte'), idx([2], Uint8Array.of(0, 1)));
  assertRefused(() => openIdx(folder, GREY), FailureError, /has 3 pictures and .*t10k-labels-idx1-ubyte 2 labels/);
  put(join(folder, 't10k-labels-idx1-ubyte'), idx([3], Uint8Array.of(0, 1, 9)));
  assert.equal(openIdx(folder, GREY).train.classes.length, 10);
  assertRefused(() => openIdx(folder, GREY, 'mine', ['a', 'b', 'c']), FailureError, /has a label 9, and mine has 3 classes/);
  const none = mnist(temporaryFolder(t), { held: 0 });
  assertRefused(() => openIdx(none, GREY), FailureError, /t10k-images-idx3-ubyte holds no pictures/);
  const lone = temporaryFolder(t);
  put(join(lone, 'train-images-idx3-ubyte'), idx([1, 28, 28], new Uint8Array(784)));
  assertRefused(() => openIdx(lone, GREY), FailureError, /no file train-labels-idx1-ubyte or train-labels-idx1-ubyte\.gz/);
});

test('fashion-mnist has its class names, and says how to get it where it is not', (t) => {
  const folder = mnist(temporaryFolder(t), { pack: true });
  const { train, credit } = openFashionMnist(GREY, ['/nowhere', folder]);
  assert.deepEqual({ channels: train.channels, classes: train.classes.length }, shapeOf('fashion-mnist', { channels: 3, classes: 1 }));
  assert.equal(train.classes[9], 'ankle boot');
  assert.match(credit ?? '', /MIT/);
  assertRefused(
    () => openFashionMnist(GREY, [join(folder, 'nothing')]),
    FailureError,
    /nothing.*apt-get install dataset-fashion-mnist.*DSD_DATA/,
  );
});

test('DSD_DATA is looked at first', (t) => {
  const folder = temporaryFolder(t);
  mnist(join(folder, 'fashion-mnist'), { train: 7 });
  const before = process.env.DSD_DATA;
  t.after(() => {
    if (before === undefined) delete process.env.DSD_DATA;
    else process.env.DSD_DATA = before;
  });
  process.env.DSD_DATA = folder;
  assert.equal(openFashionMnist(GREY).train.length, 7);
});
