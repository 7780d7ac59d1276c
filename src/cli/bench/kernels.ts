/** What share of a step's time which kind of kernel takes. Kinds are told by the names that libraries give their kernels. */
import type { KernelTime, Profile } from '../../torch/index.js';
import { figure } from '../text.js';
import { markdown, percent } from './report.js';

/** The first that fits. What is `dsd_` is ours (native/kernels). */
const GROUPS: readonly (readonly [group: string, names: RegExp])[] = [
  ['attention', /attention|flash|fmha|sdpa/i],
  ['optimizer and averages', /^dsd_(squares|root|numbers|update|momentum|direction|quintic)\b|multi_tensor_apply|adam/i],
  ['random draws', /^dsd_draw\b/],
  ['matrix products', /^dsd_product/],
  ['our fused operators', /^dsd_/],
  ['matrix products', /gemm|gemv|nvjet|cutlass|cublas|xmma|wgmma|splitk|matmul/i],
  ['copies and fills', /^mem(cpy|set)|copy_kernel|CatArray|FillFunctor|_to_copy/i],
  ['reductions', /reduce|softmax|layer_norm|rms_norm|norm_kernel|welford|argm(ax|in)|cumsum|scan/i],
  ['elementwise', /elementwise|vectorized|unrolled|index|gather|scatter|embedding|arange|where|triton/i],
];
const OTHER = 'other';

export const groupOf = (kernel: string): string => GROUPS.find(([, names]) => names.test(kernel))?.[0] ?? OTHER;

export interface GroupTime {
  readonly group: string;
  readonly calls: number;
  readonly milliseconds: number;
  /** Of the step, as the wall clock has it without a profiler beside. */
  readonly share: number;
}

export interface StepProfile {
  readonly groups: readonly GroupTime[];
  /** Milliseconds of a step in which the device did nothing, and their share. */
  readonly gap: number;
  readonly gapShare: number;
  /** Those that take longest; calls and microseconds of one step. */
  readonly top: readonly KernelTime[];
}

const TOP = 20;

/**
 * @param steps how many the profile is of
 * @param milliseconds of one step by the wall clock, measured without the profiler, which slows the launches
 */
export function stepProfile({ kernels, busy }: Profile, steps: number, milliseconds: number): StepProfile {
  const groups = new Map<string, { calls: number; microseconds: number }>();
  for (const { name, calls, microseconds } of kernels) {
    const sum = groups.get(groupOf(name)) ?? { calls: 0, microseconds: 0 };
    groups.set(groupOf(name), { calls: sum.calls + calls, microseconds: sum.microseconds + microseconds });
  }
  const gap = Math.max(0, milliseconds - busy / 1000 / steps);
  return {
    groups: [...groups]
      .map(([group, sum]) => {
        const each = sum.microseconds / 1000 / steps;
        return { group, calls: sum.calls / steps, milliseconds: each, share: each / milliseconds };
      })
      .sort((a, b) => b.milliseconds - a.milliseconds),
    gap,
    gapShare: gap / milliseconds,
    top: kernels.slice(0, TOP).map(({ name, calls, microseconds }) => ({ name, calls: calls / steps, microseconds: microseconds / steps })),
  };
}

/** Lines for people. */
export function showProfile({ groups, gap, gapShare, top }: StepProfile): string[] {
  const rows = groups.map(({ group, calls, milliseconds, share }) => [group, figure(calls), figure(milliseconds), percent(share)]);
  return [
    ...markdown(
      ['kernels of a step', 'calls', 'ms', 'share'],
      [...rows, ['the device waits', '', figure(gap), percent(gapShare)]],
      [1, 2, 3],
    ),
    '',
    ...markdown(
      ['longest kernels', 'calls', 'us a step', 'us a call'],
      top.map(({ name, calls, microseconds }) => [
        brief(name),
        figure(calls),
        figure(microseconds),
        figure(microseconds / Math.max(calls, 1e-9)),
      ]),
      [1, 2, 3],
    ),
  ];
}

const LONGEST = 90;

/** A template's name can be a page: its beginning, and of ATen's elementwise kernels the functor that tells them apart. */
export function brief(name: string): string {
  const plain = name
    .replaceAll(/\(anonymous namespace\)::|at::native::|std::|^void /g, '')
    .replaceAll(/, +/g, ',')
    .trim();
  return plain.length <= LONGEST ? plain : `${plain.slice(0, LONGEST - 1)}…`;
}
