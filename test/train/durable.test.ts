/**
 * Whatever call of the disk fails, and wherever the power goes, while a run writes its metrics, its weights and a checkpoint: the newest whole
 * checkpoint is the old one or the new one, the metrics up to it are all there, and the run can go on from it.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../src/io/disk.js';
import { type CheckpointState, Checkpoints, readState, type Snapshot, stateFile } from '../../src/train/checkpoints.js';
import { resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';
import { findResume } from '../../src/train/resume.js';
import { RunFolder } from '../../src/train/run.js';
import { forEachFault } from '../io/power.js';

const RUN = '/runs/demo';
const config = resolveConfig(findPreset('toy').settings);

const state = (images: number): CheckpointState => ({
  ...{ images, steps: images, skipped: 0, row: 0, unlogged: 0, classes: ['a'], pictures: { train: 9, heldOut: 3 }, pcaPsnr: 20 },
  evaluation: null,
  ranOn: { libtorch: '1.13.1', device: 'cpu', compute: 'float32', threads: 1, micro: 8 },
  saved: '2026-01-01T00:00:00.000Z',
  config,
});
const content = (images: number): string => `the weights after ${images} pictures, which are longer than a piece of the device\n`.repeat(3);
const snapshot = (images: number): Snapshot => ({
  images,
  files: new Map([
    [
      'online.safetensors',
      content(images)
        .match(/.{1,50}/gs)
        ?.map((part) => Buffer.from(part)) ?? [],
    ],
    stateFile(state(images)),
  ]),
});
const line = (images: number): object => ({ kind: 'train', images, losses: { total: 1 / images } });

/** Trains on the given disk up to `images`: logs, publishes weights, makes a checkpoint. */
function work(folder: RunFolder, disk: Disk, images: number): void {
  folder.log(line(images));
  folder.flushLog();
  disk.writeFileAtomic(folder.weights, content(images));
  folder.saveCard(`# after ${images}\n`);
  folder.syncLog();
  folder.checkpoints.write(snapshot(images), 1);
}

/** Another process opens the run: the one before is gone, and so is its lock. */
function reopen(disk: Disk): RunFolder {
  for (const name of disk.list(RUN)) if (name.startsWith('lock')) disk.remove(`${RUN}/${name}`);
  return RunFolder.reopen(RUN, disk);
}

const images = (text: string): number[] =>
  text
    .split('\n')
    .filter((each) => each !== '')
    .map((each) => (JSON.parse(each) as { images: number }).images);
const read = (disk: Disk, path: string): string => Buffer.from(disk.readFile(path)).toString();

test('a fault at any call of a save leaves the old checkpoint or the new one, and the run goes on from it', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(RUN);
      const folder = RunFolder.create(RUN, disk);
      folder.saveConfig(config, ['a']);
      for (const at of [10, 20]) work(folder, disk, at);
      return folder;
    },
    (disk, folder) => work(folder, disk, 30),
    (disk, what, done) => {
      const resume = findResume(RUN, {}, disk);
      assert.ok(done ? resume.state.images === 30 : [20, 30].includes(resume.state.images), `${resume.state.images}`);
      assert.equal(read(disk, `${resume.path}/online.safetensors`), content(resume.state.images));
      const weights = read(disk, `${RUN}/model.safetensors`);
      assert.ok(
        [20, 30].some((at) => weights === content(at)),
        'the published weights are whole',
      );
      const folder = reopen(disk);
      folder.rewindLog(resume.state.images);
      assert.deepEqual(images(read(disk, `${RUN}/metrics.jsonl`)), [10, 20, 30].slice(0, resume.state.images / 10));
      if (/for good/.test(what))
        assert.deepEqual(
          disk.list(`${RUN}/checkpoints`).filter((name) => name.startsWith('.')),
          [],
        );
      work(folder, disk, resume.state.images + 10);
      const checkpoints = new Checkpoints(RUN, disk);
      assert.equal(checkpoints.newest()?.images, resume.state.images + 10);
      assert.ok(checkpoints.list().length === 1 && checkpoints.list().every(({ problem }) => problem === undefined));
      folder.close();
    },
  );
});

test('lines first written after the first checkpoint are there when the second one is', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(RUN);
      const folder = RunFolder.create(RUN, disk);
      folder.checkpoints.write(snapshot(10), 1);
      folder.log(line(20));
      folder.flushLog();
      return folder;
    },
    (_, folder) => {
      folder.syncLog();
      folder.checkpoints.write(snapshot(20), 1);
    },
    (disk) => {
      const { state } = findResume(RUN, {}, disk);
      if (state.images === 20) assert.deepEqual(images(read(disk, `${RUN}/metrics.jsonl`)), [20]);
    },
  );
});

test('a fault while a run is reopened and its log rewound loses nothing', () => {
  forEachFault(
    (disk) => {
      disk.mkdir(RUN);
      const folder = RunFolder.create(RUN, disk);
      folder.saveConfig(config, ['a']);
      for (const at of [10, 20]) work(folder, disk, at);
      folder.log(line(25));
      folder.flushLog();
      folder.syncLog();
      folder.close();
      disk.mkdir(`${RUN}/checkpoints/.dsd-0123456789ab.tmp`);
    },
    (disk) => {
      const folder = RunFolder.reopen(RUN, disk);
      folder.rewindLog(20);
      folder.saveConfig(config, ['a']);
      folder.close();
    },
    (disk, _, done) => {
      assert.equal(findResume(RUN, {}, disk).state.images, 20);
      const logged = images(read(disk, `${RUN}/metrics.jsonl`));
      assert.ok(logged.join() === '10,20' || (!done && logged.join() === '10,20,25'), `${logged}`);
      assert.equal((JSON.parse(read(disk, `${RUN}/config.json`)) as { preset: string }).preset, 'toy');
    },
  );
});

test('a fault while checkpoints are pruned, or a damaged one is put aside, leaves a whole one', () => {
  const setup = (disk: Disk): Checkpoints => {
    disk.mkdir(RUN);
    const checkpoints = new Checkpoints(RUN, disk);
    for (const at of [10, 20, 30]) checkpoints.write(snapshot(at), 9);
    return checkpoints;
  };
  forEachFault(
    setup,
    (_, checkpoints) => void checkpoints.prune(1),
    (disk, _, done) => {
      const left = new Checkpoints(RUN, disk).list();
      assert.ok(left.every(({ problem }) => problem === undefined));
      assert.equal(new Checkpoints(RUN, disk).newest()?.images, 30);
      if (done) assert.equal(left.length, 1);
    },
  );
  forEachFault(
    (disk) => {
      const checkpoints = setup(disk);
      disk.writeFileAtomic(`${checkpoints.path(30)}/online.safetensors`, 'spoilt');
      return checkpoints;
    },
    (_, checkpoints) => void checkpoints.setAside(checkpoints.path(30)),
    (disk) => {
      const newest = new Checkpoints(RUN, disk).newest();
      assert.equal(newest?.images, 20);
      assert.equal(readState(newest.path, disk).images, 20);
    },
  );
});

test('a fault while a run is made leaves nothing that looks like a run to go on with', () => {
  forEachFault(
    (disk) => disk.mkdir('/runs'),
    (disk) => {
      const folder = RunFolder.create(RUN, disk);
      folder.saveConfig(config, ['a']);
      folder.close();
    },
    (disk) => {
      assert.throws(() => findResume(RUN, {}, disk), /no run folder|no checkpoint to go on from/);
    },
  );
});
