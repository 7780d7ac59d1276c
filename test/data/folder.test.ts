import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { FailureError } from '../../src/core/errors.js';
import type { Broken, FolderOptions } from '../../src/data/folder.js';
import { openFolder } from '../../src/data/folder.js';
import { PictureError } from '../../src/data/job.js';
import type { ImageSource } from '../../src/data/source.js';
import { colourError, plain, put, temporaryFolder } from './corpus.js';

const SMALL = { size: 8, channels: 3 } as const;

async function picture(path: string, value = 128): Promise<string> {
  return put(path, await plain(10, 10, [value, value, value]).png().toBuffer());
}

function paths(source: ImageSource): string[] {
  return Array.from({ length: source.length }, (_, i) => source.path(i));
}

/** The refusal of a folder, checked to be one for the user and to name the folder. */
function refusal(folder: string, options: FolderOptions = SMALL): string {
  try {
    openFolder(folder, options);
  } catch (error) {
    assert.ok(error instanceof FailureError, String(error));
    assert.ok(error.message.includes(folder), error.message);
    return error.message;
  }
  assert.fail(`${folder} was opened`);
}

test('sub-folders are classes in order of their names; pictures are found by content, at any depth; hidden ones are not', async (t) => {
  const folder = temporaryFolder(t);
  await picture(join(folder, 'zebra', '1.png'), 10);
  await picture(join(folder, 'zebra', '2.PNG'), 20);
  await picture(join(folder, 'Ant', 'deep', 'deeper', 'x.jpeg'), 30);
  await picture(join(folder, 'Ant', 'no ending'), 40);
  await picture(join(folder, 'Ant', 'third.dat'), 50);
  await picture(join(folder, 'Ant', '.hidden.png'), 60);
  await picture(join(folder, '.thumbs', 'a.png'), 70);
  put(join(folder, 'Ant', 'notes.txt'), 'ants have six legs');
  put(join(folder, 'zebra', 'Thumbs.db'), '');
  put(join(folder, 'README.md'), '# mine');
  const { train, heldOut } = openFolder(folder, SMALL);
  assert.deepEqual(train.classes, ['Ant', 'zebra']);
  assert.equal(train.classes, heldOut.classes);
  const found = [...paths(train), ...paths(heldOut)].map((path) => path.slice(folder.length + 1)).sort();
  assert.deepEqual(found, ['Ant/deep/deeper/x.jpeg', 'Ant/no ending', 'Ant/third.dat', 'zebra/1.png', 'zebra/2.PNG']);
  for (const source of [train, heldOut]) {
    for (let i = 0; i < source.length; i++) {
      assert.equal(
        source.classes[source.label(i)],
        source
          .path(i)
          .slice(folder.length + 1)
          .split('/')[0],
      );
      const pixels = await source.load(i);
      assert.equal(pixels.length, 8 * 8 * 3);
      const value = { '1.png': 10, '2.PNG': 20, 'x.jpeg': 30, 'no ending': 40, 'third.dat': 50 }[source.path(i).split('/').at(-1)!]!;
      assert.ok(colourError(pixels, [value, value, value]) < 2);
    }
  }
});

test('about 5 % are held out; a file added later changes no other file of side', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 600; i++) put(join(folder, `class ${i % 3}`, `${i}.jpg`), '');
  const before = openFolder(folder, SMALL);
  assert.ok(before.heldOut.length > 15 && before.heldOut.length < 50, `${before.heldOut.length} of 600`);
  assert.equal(before.train.length + before.heldOut.length, 600);
  const again = openFolder(folder, SMALL);
  assert.deepEqual(paths(again.heldOut), paths(before.heldOut));

  for (let i = 600; i < 700; i++) put(join(folder, `class ${i % 3}`, `${i}.jpg`), '');
  const after = openFolder(folder, SMALL);
  const heldAfter = new Set(paths(after.heldOut));
  for (const path of paths(before.heldOut)) assert.ok(heldAfter.has(path), path);
  for (const path of paths(before.train)) assert.ok(!heldAfter.has(path), path);
});

test('small sets: something is held out, and no class loses its last picture', async (t) => {
  for (const [classes, each] of [
    [1, 2],
    [3, 2],
    [7, 1],
  ] as const) {
    const folder = temporaryFolder(t);
    for (let c = 0; c < classes; c++) for (let i = 0; i < each; i++) put(join(folder, `${c}`, `${i}.png`), '');
    const { train, heldOut } = openFolder(folder, SMALL);
    assert.ok(heldOut.length >= 1);
    assert.equal(train.length + heldOut.length, classes * each);
    const labels = new Set(Array.from({ length: train.length }, (_, i) => train.label(i)));
    assert.ok(labels.size === classes || each === 1, 'every class is trained on, unless each has one picture');
  }
});

test('the only picture of a class is not held out, however its path hashes', (t) => {
  const folder = temporaryFolder(t);
  const low = (path: string): boolean => createHash('sha256').update(path).digest().readUInt32BE() < 0.02 * 2 ** 32;
  const lone = Array.from({ length: 1000 }, (_, i) => `lone/${i}.png`).find(low);
  put(join(folder, lone!), '');
  for (let i = 0; i < 200; i++) put(join(folder, 'many', `${i}.png`), '');
  const { train, heldOut } = openFolder(folder, SMALL);
  assert.equal(train.label(0), 0);
  assert.ok(paths(heldOut).every((path) => path.includes('many')));
});

test('val beside train, else test beside train, is what is held out; train alone is looked into', async (t) => {
  const folder = temporaryFolder(t);
  for (const name of ['a', 'b']) for (let i = 0; i < 3; i++) await picture(join(folder, 'train', name, `${i}.png`));
  const alone = openFolder(folder, SMALL);
  assert.deepEqual(alone.train.classes, ['a', 'b']);
  assert.equal(alone.train.length, 5);

  await picture(join(folder, 'test', 'b', 'x.png'));
  const tested = openFolder(folder, SMALL);
  assert.equal(tested.train.length, 6);
  assert.deepEqual(paths(tested.heldOut), [join(folder, 'test', 'b', 'x.png')]);
  assert.equal(tested.heldOut.label(0), 1);

  await picture(join(folder, 'val', 'a', 'y.png'));
  assert.deepEqual(paths(openFolder(folder, SMALL).heldOut), [join(folder, 'val', 'a', 'y.png')]);

  await picture(join(folder, 'val', 'c', 'z.png'));
  assert.match(refusal(folder), /class folder "c", which .*train does not have/);
});

test('val without class folders is refused', async (t) => {
  const folder = temporaryFolder(t);
  for (const name of ['a', 'b']) await picture(join(folder, 'train', name, '0.png'));
  await picture(join(folder, 'val', '0.png'));
  assert.match(refusal(folder), /val has no picture .* in class folders/);
});

test('a folder of pictures without sub-folders is one class', async (t) => {
  const folder = join(temporaryFolder(t), 'faces');
  for (let i = 0; i < 4; i++) await picture(join(folder, `${i}.png`));
  const { train, heldOut } = openFolder(folder, SMALL);
  assert.deepEqual(train.classes, ['faces']);
  assert.equal(train.length + heldOut.length, 4);
});

test('empty folders are refused by name', async (t) => {
  const folder = temporaryFolder(t);
  assert.match(refusal(folder), /no pictures and no sub-folders/);
  mkdirSync(join(folder, 'cats'));
  assert.match(refusal(folder), /1 sub-folder and no picture .* in it/);
  await picture(join(folder, 'cats', '1.png'));
  assert.match(refusal(folder), /at least two/);
  await picture(join(folder, 'cats', '2.png'));
  openFolder(folder, SMALL);
  mkdirSync(join(folder, 'dogs'));
  put(join(folder, 'owls', 'poem.txt'), 'too-whit');
  assert.match(refusal(folder), /class folders "dogs", "owls"/);
  for (let i = 0; i < 9; i++) mkdirSync(join(folder, `empty${i}`));
  assert.match(refusal(folder), /"empty3" and 6 more/);
});

test('a circle of links is refused, not followed for ever', async (t) => {
  const folder = temporaryFolder(t);
  await picture(join(folder, 'a', '1.png'));
  await picture(join(folder, 'a', '2.png'));
  symlinkSync('..', join(folder, 'a', 'up'));
  assert.match(refusal(folder), /link/);
});

test('a link that leads nowhere is no class and no picture', async (t) => {
  const folder = temporaryFolder(t);
  await picture(join(folder, 'a', '1.png'));
  await picture(join(folder, 'a', '2.png'));
  symlinkSync('/nowhere', join(folder, 'gone'));
  symlinkSync('/nowhere', join(folder, 'a', 'gone'));
  const { train, heldOut } = openFolder(folder, SMALL);
  assert.deepEqual([train.length, heldOut.length, train.classes], [1, 1, ['a']]);
});

test('a broken picture stops by default, with its path and the reason', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 4; i++) put(join(folder, 'a', `${i}.jpg`), 'not a picture');
  const { train } = openFolder(folder, SMALL);
  await assert.rejects(train.load(0), (error) => {
    assert.ok(error instanceof PictureError);
    assert.equal(error.path, train.path(0));
    assert.match(error.message, /cannot use picture .*\.jpg: it is not a JPEG.*"not a picture"$/s);
    return true;
  });
});

test('skipped: the next sound picture of its class stands in, the same each time, and each is reported once', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 12; i++) await picture(join(folder, 'a', `${10 + i}.png`), 10 * i);
  for (let i = 0; i < 12; i++) await picture(join(folder, 'b', `${10 + i}.png`), 200);
  const bad = ['12', '13', '21'].map((name) => put(join(folder, 'a', `${name}.png`), ''));
  const broken: Broken[] = [];
  const options = { ...SMALL, broken: 'skip', keep: false, onBroken: (one: Broken) => broken.push(one) } as const;
  const { train } = openFolder(folder, options);
  const places = paths(train);
  const place = (path: string): number => places.indexOf(path);
  const used = bad.filter((path) => place(path) >= 0);
  assert.ok(used.length >= 2, 'the split leaves broken pictures in the training part');

  const first = await Promise.all(used.map((path) => train.load(place(path))));
  const again = await Promise.all(used.map((path) => train.load(place(path))));
  assert.deepEqual(again, first);
  assert.deepEqual(broken.map((one) => one.path).sort(), [...used].sort());
  for (const one of broken) {
    assert.match(one.reason, /empty/);
    assert.ok(one.replacedBy.startsWith(join(folder, 'a')), 'of the same class');
    const substitute = await train.load(place(one.replacedBy));
    assert.deepEqual(await train.load(place(one.path)), substitute);
  }
});

test('skipped: no more than the cap, and not where nothing can stand in', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 40; i++) await picture(join(folder, 'a', `${10 + i}.png`));
  for (let i = 0; i < 40; i += 2) put(join(folder, 'a', `${10 + i}.png`), 'x');
  const { train } = openFolder(folder, { ...SMALL, broken: 'skip', maxBroken: 3 });
  const outcomes = [];
  for (let i = 0; i < train.length; i++)
    outcomes.push(
      await train.load(i).then(
        () => 'fine',
        (error: Error) => error.message,
      ),
    );
  assert.match(
    outcomes.find((outcome) => outcome !== 'fine')!,
    /4 of \d+ pictures are broken, and at most 3 are skipped.*\.png: it is not/,
  );

  for (let i = 0; i < 3; i++) put(join(folder, 'b', `${i}.png`), '');
  const hopeless = openFolder(folder, { ...SMALL, broken: 'skip' }).train;
  await assert.rejects(hopeless.load(hopeless.length - 1), /empty.*No other of class b could take its place: \d pictures tried/);
});

test('pictures are kept in memory if asked, or if all fit', async (t) => {
  const folder = temporaryFolder(t);
  for (let i = 0; i < 3; i++) await picture(join(folder, 'a', `${i}.png`));
  for (const [keep, kept] of [
    [undefined, true],
    [true, true],
    [false, false],
  ] as const) {
    const { train } = openFolder(folder, { ...SMALL, keep });
    assert.equal(train.peek(0), undefined, 'nothing is decoded before it is asked for');
    const pixels = await train.load(0);
    assert.deepEqual(train.peek(0), kept ? pixels : undefined);
  }
  assert.throws(() => openFolder(folder, SMALL).train.label(99), /picture 99 was asked for, and there are 2/);
});
