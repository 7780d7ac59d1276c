/** Ctrl-C once is Ctrl-C once, however often it arrives: npx passes it on to a process that the terminal has sent it to already. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Checkpoints } from '../../src/train/checkpoints.js';
import { dsd, makePictures, start, TOY, workplace } from '../cli/harness.js';

const { folder, remove } = workplace();
before(() => makePictures(join(folder, 'pictures')));
after(remove);

for (const pause of [0, 20, 60]) {
  test(`two SIGINTs within ${pause} ms save and end with 75`, async () => {
    const out = `run ${pause}`;
    const running = start([...TOY, '--data', 'pictures', '--out', out, '--set', 'train.images=10000000'], { cwd: folder });
    await running.said('\nrun ');
    running.kill('SIGINT');
    if (pause > 0) await sleep(pause);
    running.kill('SIGINT');
    const { code, signal, stderr } = await running.ended;
    assert.equal(code, 75, `${signal} ${stderr}`);
    assert.ok(new Checkpoints(join(folder, out)).newest());
  });
}

test('the checkpoints of a run at work can be listed, whatever it removes meanwhile', async () => {
  const words = [...TOY, '--data', 'pictures', '--out', 'at work', '--set', 'train.images=10000000', '--set', 'checkpoint.minutes=0'];
  const running = start(words, { cwd: folder });
  await running.said('\nrun ');
  for (let i = 0; i < 8; i++) {
    const { code, stderr } = await dsd(['checkpoint', 'list', 'at work'], { cwd: folder });
    assert.equal(code, 0, stderr);
  }
  running.kill('SIGKILL');
  await running.ended;
});
