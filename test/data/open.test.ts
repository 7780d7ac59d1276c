import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { FailureError, UsageError } from '../../src/core/errors.js';
import { DATA_NAMES, openData } from '../../src/data/open.js';
import { idx, plain, put, temporaryFolder } from './corpus.js';

test('an unknown name is answered with the known ones and the nearest', async () => {
  await assert.rejects(openData('openmojy', { size: 32 }), (error) => {
    assert.ok(error instanceof UsageError);
    for (const name of DATA_NAMES) assert.ok(error.message.includes(name));
    assert.match(error.message, /"openmojy".*Did you mean openmoji\?/);
    return true;
  });
  await assert.rejects(
    openData('/no/such/folder', { size: 32 }),
    (error) => error instanceof UsageError && !error.message.includes('Did you mean'),
  );
});

test('a file in place of a folder, and sizes that cannot be, are refused', async (t) => {
  const folder = temporaryFolder(t);
  const file = put(join(folder, 'a.png'), 'x');
  await assert.rejects(
    openData(file, { size: 32 }),
    (error) => error instanceof FailureError && /is a file, and a folder is needed/.test(error.message),
  );
  for (const size of [0, 7, 32.5, 4096, Number.NaN])
    await assert.rejects(openData('openmoji', { size }), (error) => error instanceof UsageError && error.message.includes(String(size)));
});

test('a folder is opened by what it holds: IDX files or class folders', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 3; i++) put(join(folder, 'a', `${i}.png`), await plain(9, 9, [1, 2, 3]).png().toBuffer());
  const classes = await openData(folder, { size: 8 });
  assert.deepEqual([classes.train.channels, classes.train.classes, classes.train.length], [3, ['a'], 2]);
  const grey = await openData(folder, { size: 8, channels: 1 });
  assert.equal((await grey.train.load(0)).length, 64);

  for (const part of ['train', 't10k']) {
    put(join(folder, `${part}-images.idx3-ubyte`), idx([2, 9, 9], new Uint8Array(162)));
    put(join(folder, `${part}-labels.idx1-ubyte`), idx([2], Uint8Array.of(0, 4)));
  }
  const digits = await openData(folder, { size: 9 });
  assert.deepEqual([digits.train.channels, digits.train.classes.length, digits.heldOut.length], [1, 5, 2]);
});

test('options reach the folder: broken pictures are reported and skipped', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 20; i++) put(join(folder, 'a', `${i}.png`), i % 4 === 0 ? 'x' : await plain(9, 9, [9, 9, 9]).png().toBuffer());
  const broken: string[] = [];
  const { train } = await openData(folder, { size: 8, broken: 'skip', onBroken: ({ path }) => broken.push(path) });
  for (let i = 0; i < train.length; i++) assert.equal((await train.load(i)).length, 192);
  assert.ok(broken.length >= 3, `${broken.length} reported`);
});
