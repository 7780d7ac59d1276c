/** `dsd checkpoint`: what an interrupted run could go on from, whether it is sound, and room made on the disk. */
import { FailureError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import { lockToMakeRoom } from '../io/lock.js';
import { Checkpoints, type Found, readState } from '../train/checkpoints.js';
import { defineCommand } from './command.js';
import { print, printJson, RESULT } from './output.js';
import { openProgress } from './progress.js';
import { count, counted, short, table } from './text.js';

const ACTIONS = ['list', 'verify', 'prune'] as const;

export const checkpoint = defineCommand({
  name: 'checkpoint',
  about:
    'Looks at the checkpoints of a run: list tells what each holds, verify reads every byte of them, prune removes all but the newest, of which it has read every byte. A checkpoint that is not whole is never gone on from.',
  operands: { names: 'list|verify|prune RUN', min: 2, max: 2 },
  flags: {
    keep: { kind: 'whole', value: 'N', min: 1, about: 'prune: so many of the newest whole ones stay; 1 if not given' },
    ...RESULT,
  },
  examples: [
    ['dsd checkpoint list runs/demo', 'pictures trained on, size, when it was saved'],
    ['dsd checkpoint verify runs/demo', 'exit code 1 if one is damaged'],
    ['dsd checkpoint prune runs/demo --keep 1', 'frees the disk; the newest stays'],
  ],
  run: async (flags, [action, run]) => {
    if (!isAction(action)) throw new UsageError(`dsd checkpoint wants ${ACTIONS.join(', ')}; found '${action}'`);
    if (run === undefined || !disk.exists(run) || disk.stat(run).kind !== 'folder') throw new UsageError(`there is no run folder '${run}'`);
    if (flags.keep !== undefined && action !== 'prune') throw new UsageError('--keep is for dsd checkpoint prune');
    const checkpoints = new Checkpoints(run);
    const progress = openProgress(flags);
    const check = (path: string) => checkpoints.problem(path, (done, of) => progress.update(`${path}: ${Math.floor((100 * done) / of)} %`));
    if (action === 'prune') {
      const lock = lockToMakeRoom(run, 'removing checkpoints');
      try {
        const gone = [...checkpoints.sweep(), ...checkpoints.prune(flags.keep ?? 1, (path) => check(path) === undefined)];
        progress.clear();
        const left = checkpoints.list().map(({ path }) => path);
        if (flags.json) printJson({ removed: gone, left });
        else print(...gone.map((path) => `removed ${path}`), `${counted(left.length, 'checkpoint')} left`);
      } finally {
        lock.release();
      }
      return;
    }
    const found = checkpoints.list().map((each) => {
      const problem = each.problem ?? (action === 'verify' ? check(each.path) : undefined);
      return { ...each, ...(problem === undefined ? {} : { problem }) };
    });
    progress.clear();
    if (flags.json) printJson({ run, checkpoints: found });
    else if (found.length === 0) print(`${run} has no checkpoints`);
    else print(...table(found.flatMap((each) => rowIfThere(each, action))));
    const damaged = found.filter(({ problem }) => problem !== undefined);
    if (action === 'verify' && damaged.length > 0)
      throw new FailureError(
        `${counted(damaged.length, 'checkpoint')} of ${count(found.length)} ${damaged.length === 1 ? 'is' : 'are'} damaged`,
      );
  },
});

const isAction = (word: string | undefined): word is (typeof ACTIONS)[number] => ACTIONS.some((action) => action === word);

/** None for one that the run at work has removed meanwhile. */
function rowIfThere(found: Found, action: (typeof ACTIONS)[number]): string[][] {
  try {
    return [row(found, action)];
  } catch (error) {
    if (disk.exists(found.path)) throw error;
    return [];
  }
}

function row({ path, images, bytes, problem }: Found, action: (typeof ACTIONS)[number]): string[] {
  if (problem !== undefined) return [path, counted(images, 'picture'), `damaged: ${problem}`];
  const { saved, config } = readState(path);
  const share = `of ${count(config.train.images)}`;
  return [
    path,
    `${counted(images, 'picture')} ${share}`,
    `${short(bytes, ' ')}B`,
    `saved ${saved}`,
    action === 'verify' ? 'every byte is as written' : '',
  ];
}
