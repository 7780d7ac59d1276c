/** Curves and results made by hand. */
import type { CollapseResult } from '../../src/study/collapse/study.js';
import type { Point } from '../../src/study/collapse/train-case.js';
import { resolveConfig } from '../../src/train/config.js';
import { findPreset } from '../../src/train/presets.js';

export const CHANNELS = 8;
export const BLANK = 0.3;

/** A curve of 41 points over 40,000 pictures; each value is a number, or a function of the share of the run from 0 to 1. */
export function curve(values: Partial<Record<keyof Omit<Point, 'images'>, number | ((share: number) => number)>>): Point[] {
  const usual = { effectiveRank: 7, deviation: 1, latentDeviation: 1, predictionRank: 6, l1: 0.1 };
  return Array.from({ length: 41 }, (_, i) => {
    const at = (value: number | ((share: number) => number)): number => (typeof value === 'number' ? value : value(i / 40));
    const own = Object.entries({ ...usual, ...values }).map(([name, value]) => [name, at(value)]);
    return { images: i * 1000, ...(Object.fromEntries(own) as Omit<Point, 'images'>) };
  });
}

export function result(name: string, seed: number, points: readonly Point[]): CollapseResult {
  return {
    ...{ data: 'discs', case: name, seed, measured: 64, scale: 1, blank: BLANK, finished: '2026-01-01T00:00:00Z' },
    config: resolveConfig(findPreset('toy').settings, { model: { latent: CHANNELS } }),
    machine: { device: 'cpu', compute: 'float32', threads: 1, libtorch: '1.13.1', processor: 'a processor' },
    curve: { points, skipped: 0, seconds: 60 },
  };
}
