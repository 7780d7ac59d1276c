/** What a study keeps: one file for each finished run, whole or absent, so that an interrupted study goes on where it was. */
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import { FailureError, UsageError } from '../core/errors.js';
import { disk } from '../io/disk.js';
import { checkConfig } from '../train/config.js';
import type { Identity, PlannedRun, RunResult } from './study.js';

/** What results of all studies have beside settings and outcome. */
const frame = z.object({
  data: z.string(),
  case: z.string(),
  seed: z.number(),
  machine: z.object({ device: z.string(), compute: z.string(), threads: z.number(), libtorch: z.string(), processor: z.string() }),
  finished: z.string(),
});

/** The folder of results in a study's. */
export const RESULTS = 'results';
/** Far above what a run writes. */
const LIMIT = 2 ** 24;

/** The results in a study's folder. */
export class ResultStore<S extends object, O extends object> {
  private readonly folder: string;

  /** @param outcome what of a result is no setting */
  constructor(
    study: string,
    private readonly outcome: z.ZodType<O>,
  ) {
    this.folder = join(study, RESULTS);
  }

  private path({ data, case: name, seed }: Identity): string {
    return join(this.folder, `${data}.${name}.${seed}.json`);
  }

  save(result: RunResult<S, O>): void {
    disk.mkdir(this.folder);
    disk.writeFileAtomic(this.path(result), `${JSON.stringify(result)}\n`);
  }

  /**
   * The finished run of this case, seed and settings; undefined if there is none yet.
   * @throws UsageError when there is one of other settings, which this study must not mix with its own; FailureError when it cannot be read
   */
  find(wanted: PlannedRun<S>, compute: string): RunResult<S, O> | undefined {
    const path = this.path(wanted);
    if (!disk.exists(path)) return undefined;
    const { tree, ...found } = this.read(path);
    const settings = Object.fromEntries(Object.keys(wanted.settings).map((name) => [name, asNow(tree[name], name)]));
    const other = difference({ ...settings, compute: found.machine.compute }, { ...wanted.settings, compute });
    if (other !== undefined)
      throw new UsageError(`'${path}' is of other settings: ${other}. Choose another --out, or remove that file to have it computed again`);
    // The settings are those that are wanted, value by value.
    return { ...found, ...wanted.settings, ...found.outcome };
  }

  private read(path: string): z.infer<typeof frame> & { readonly outcome: O; readonly tree: Readonly<Record<string, unknown>> } {
    const bad = (reason: string, cause?: unknown): FailureError =>
      new FailureError(`'${path}' is no result of this study: ${reason}. Remove it to have it computed again`, { cause });
    let tree: unknown;
    try {
      tree = JSON.parse(new TextDecoder().decode(disk.readFile(path, LIMIT)));
    } catch (cause) {
      if (!(cause instanceof SyntaxError)) throw cause;
      throw bad('it is not JSON', cause);
    }
    const parsed = <T>(schema: z.ZodType<T>): T => {
      const result = schema.safeParse(tree);
      if (result.success) return result.data;
      throw bad(result.error.issues.map(({ path: at, message }) => `${at.join('.')}: ${message}`).join('; '));
    };
    return { ...parsed(frame), outcome: parsed(this.outcome), tree: tree as Readonly<Record<string, unknown>> };
  }
}

/** Settings as they were written, with what was done then for what has become a setting since. @param name where they are in what is around them */
function asNow(tree: unknown, name = ''): unknown {
  if (typeof tree !== 'object' || tree === null) return tree;
  if (Array.isArray(tree)) return tree.map((each) => asNow(each));
  if (name !== 'config') return Object.fromEntries(Object.entries(tree).map(([key, value]) => [key, asNow(value, key)]));
  try {
    return checkConfig(tree);
  } catch (error) {
    if (error instanceof UsageError) return tree; // of no run that this version knows: it will differ
    throw error;
  }
}

/** The first setting in which two trees differ as JSON has them, with both values; undefined where they are the same. */
export function difference(found: unknown, wanted: unknown): string | undefined {
  const json = (tree: unknown): unknown => JSON.parse(JSON.stringify(tree));
  return firstDifference(json(found), json(wanted), '');
}

function firstDifference(found: unknown, wanted: unknown, path: string): string | undefined {
  if (isDeepStrictEqual(found, wanted)) return undefined;
  const isTree = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
  if (!isTree(found) || !isTree(wanted)) return `${path} ${JSON.stringify(found)}, wanted ${JSON.stringify(wanted)}`;
  for (const key of new Set([...Object.keys(found), ...Object.keys(wanted)])) {
    const below = firstDifference(found[key], wanted[key], path === '' ? key : `${path}.${key}`);
    if (below !== undefined) return below;
  }
  return undefined;
}
