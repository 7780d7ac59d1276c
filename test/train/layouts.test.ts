/** A checkpoint of every layout that was ever released can be gone on with: see test/fixtures/runs/make.mjs. */
import assert from 'node:assert/strict';
import { cpSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { dsd, makePictures, workplace } from '../cli/harness.js';

const RUNS = join(import.meta.dirname, '../../../test/fixtures/runs');
const { folder, remove } = workplace();
before(() => makePictures(join(folder, 'pictures')));
after(remove);

for (const layout of readdirSync(RUNS).filter((name) => name.startsWith('dsd-'))) {
  test(`${layout} goes on`, async () => {
    cpSync(join(RUNS, layout), join(folder, layout), { recursive: true });
    const { code, stdout, stderr } = await dsd(['train', '--resume', layout, '--set', 'train.images=80'], { cwd: folder });
    assert.equal(code, 0, stderr);
    assert.match(stderr, /resumed +after 48 pictures/);
    assert.match(stdout, /trained +80 pictures, 32 of them now/);
    const lines = readFileSync(join(folder, layout, 'metrics.jsonl'), 'utf8')
      .trimEnd()
      .split('\n');
    assert.deepEqual(
      lines.map((line) => (JSON.parse(line) as { images: number }).images),
      [32, 48, 48, 64, 80, 80],
    );
    const verified = await dsd(['checkpoint', 'verify', layout], { cwd: folder });
    assert.equal(verified.code, 0, verified.stderr);
  });
}
