/** What studies have in common: runs that are planned, computed one after another, and kept. */
import { basename, resolve } from 'node:path';
import type { z } from 'zod';
import type { DataSet } from '../data/source.js';
import type { Device, DType } from '../torch/index.js';
import type { RunConfig } from '../train/config.js';

/** Something of a study that is chosen by its name. */
export interface Named {
  readonly name: string;
  /** As legends and tables call it. */
  readonly label: string;
  readonly about: string;
}

/** What help says of a size at which a study is run. */
export interface PresetText {
  readonly about: string;
  readonly cost: string;
  readonly expect: string;
}

/** Which run of a study. */
export interface Identity {
  /** What its set of pictures is called: 'openmoji-16px'. */
  readonly data: string;
  readonly case: string;
  readonly seed: number;
}

/** One run of a plan. S: all that its result depends on, as it can be saved. */
export interface PlannedRun<S> extends Identity {
  readonly settings: S;
  readonly pictures: RunConfig['data'];
  /** What its training costs, in a unit of the study's. */
  readonly cost: number;
}

/** Where a run was computed. */
export interface Machine {
  readonly device: string;
  readonly compute: string;
  readonly threads: number;
  readonly libtorch: string;
  readonly processor: string;
}

/** A finished run, with its settings S and what came of them, O. */
export type RunResult<S, O> = Identity &
  S &
  O & {
    readonly machine: Machine;
    /** ISO 8601, in UTC. */
    readonly finished: string;
  };

/** Where and how it is computed. */
export interface Workplace {
  /** The study's folder, which exists. */
  readonly out: string;
  readonly device: Device;
  readonly compute: DType;
  readonly machine: Machine;
  readonly signal: AbortSignal;
}

/** A set of pictures opened to compute runs on. D: what is told while one is computed. */
export interface Bench<S, O, D> {
  /** @param onProgress told of the share of the run's cost that is behind it */
  compute(run: PlannedRun<S>, onProgress: (share: number, detail: D) => void): Promise<O>;
  close(): void;
}

export interface Study<S extends object, O extends object, D> {
  /** As it is called on the command line. */
  readonly name: string;
  readonly runs: readonly PlannedRun<S>[];
  /** What of a result's file is its outcome. */
  readonly outcome: z.ZodType<O>;
  /** Called for each set of pictures on which there is a run to compute, with the first of them. */
  open(data: DataSet, first: PlannedRun<S>, work: Workplace, onProgress: (detail: D) => void): Promise<Bench<S, O, D>>;
}

/** For file names: the last part of the path of a run's pictures, and their size. */
export const dataName = ({ source, image }: RunConfig['data']): string =>
  `${basename(resolve(source)).replaceAll(/[^\w-]+/g, '_')}-${image}px`;
