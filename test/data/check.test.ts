import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import { checkPictures } from '../../src/data/check.js';
import { openFolder } from '../../src/data/folder.js';
import { PictureError } from '../../src/data/job.js';
import { DecodePool } from '../../src/data/pool.js';
import { MemorySource } from '../../src/data/source.js';
import { noise, plain, put, temporaryFolder } from './corpus.js';

/** Two classes of so many pictures to train on and three held out; the named ones are text. */
async function folderOf(folder: string, count: number, broken: readonly string[]): Promise<string> {
  const sound = await plain(10, 10, [9, 9, 9]).png().toBuffer();
  for (const name of ['a', 'b']) {
    for (let i = 0; i < count; i++) put(join(folder, 'train', name, `${100 + i}.png`), sound);
    for (let i = 0; i < 3; i++) put(join(folder, 'val', name, `${i}.png`), sound);
  }
  for (const path of broken) put(join(folder, path), 'hello');
  return folder;
}

const open = (folder: string, broken?: 'error' | 'skip', keep = false) =>
  openFolder(folder, { size: 8, channels: 3, keep, ...(broken ? { broken } : {}) });

test('every broken picture of both parts is found, in the order of the set, whatever the processes', async (t) => {
  const bad = ['train/a/100.png', 'train/a/119.png', 'train/b/107.png', 'val/b/1.png'];
  const folder = await folderOf(temporaryFolder(t), 20, bad);
  const wanted = bad.map((path) => [join(folder, path), path.startsWith('val') ? 'heldOut' : 'train']);
  for (const broken of ['error', 'skip'] as const) {
    for (const workers of [0, 2]) {
      const shown: number[][] = [];
      const result = await checkPictures(open(folder, broken), { workers, onProgress: (...at) => shown.push(at) });
      assert.equal(result.pictures, 46);
      assert.deepEqual(
        result.broken.map(({ path, part }) => [path, part]),
        wanted,
      );
      for (const { reason } of result.broken) assert.match(reason, /^it is not a JPEG/);
      assert.deepEqual(
        shown.map(([done]) => done),
        Array.from({ length: 46 }, (_, i) => i + 1),
      );
      assert.deepEqual(shown.at(-1), [46, 46, 4]);
      if (broken === 'skip') assert.equal(result.refusal, undefined, 'four may be skipped');
      else {
        assert.ok(result.refusal instanceof PictureError);
        assert.equal(result.refusal.path, join(folder, bad[0]!));
      }
    }
  }
});

test('each has its own reason, though libvips tells all threads in one place', async (t) => {
  const folder = await folderOf(temporaryFolder(t), 40, []);
  const [png, jpeg] = await Promise.all([noise(40, 40, 1).png().toBuffer(), noise(40, 40, 1).jpeg().toBuffer()]);
  for (let i = 0; i < 40; i++) {
    put(join(folder, 'train', 'a', `${100 + i}.png`), png.subarray(0, png.length >> 1));
    put(join(folder, 'train', 'b', `${100 + i}.png`), jpeg.subarray(0, jpeg.length >> 1));
  }
  const { broken } = await checkPictures(open(folder), { workers: 4 });
  assert.equal(broken.length, 80);
  for (const { path, reason } of broken)
    assert.match(reason, path.includes('/a/') ? /cut off or damaged \(.*png/ : /cut off or damaged \(.*(jpeg|JPEG)/, path);
});

test("what 'skip' would stop at is told, and all that is broken beside it", async (t) => {
  const many = await folderOf(
    temporaryFolder(t),
    30,
    Array.from({ length: 12 }, (_, i) => `train/a/${100 + 2 * i}.png`),
  );
  const found = await checkPictures(open(many, 'skip'), { workers: 2 });
  assert.equal(found.broken.length, 12);
  assert.match(found.refusal?.message ?? '', /11 of 60 pictures are broken, and at most 10 are skipped/);

  const none = await folderOf(temporaryFolder(t), 3, ['train/b/100.png', 'train/b/101.png', 'train/b/102.png']);
  const empty = await checkPictures(open(none, 'skip'), { workers: 2 });
  assert.equal(empty.broken.length, 3);
  assert.match(empty.refusal?.message ?? '', /No other of class b could take its place/);
});

test('a sound set is sound; pictures in memory need no decoding', async (t) => {
  const folder = await folderOf(temporaryFolder(t), 2, []);
  assert.deepEqual(await checkPictures(open(folder, 'error', true), { workers: 1 }), { pictures: 10, broken: [] });
  const about = { name: 'squares', size: 8, channels: 1, classes: ['x'] } as const;
  const source = new MemorySource(about, new Uint8Array(128), [0, 0], String);
  assert.deepEqual(await checkPictures({ train: source, heldOut: source }), { pictures: 4, broken: [] });
});

test('trouble that is no broken picture ends the check', async (t) => {
  const set = open(await folderOf(temporaryFolder(t), 5, []));
  t.mock.method(DecodePool.prototype, 'run', () => Promise.reject(new FailureError('a decoding process died')));
  await assert.rejects(checkPictures(set), /a decoding process died/);
});
