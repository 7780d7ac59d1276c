/** Tables of `dsd bench` as Markdown, to be pasted where results are kept. */
import type { Range } from '../measure.js';
import { figure } from '../text.js';

/** A table with its columns aligned; those of `right` (numbers) end flush. */
export function markdown(head: readonly string[], rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const all = [head, ...rows].map((row) => head.map((_, i) => (row[i] ?? '').replaceAll('|', '\\|')));
  const widths = head.map((_, i) => Math.max(3, ...all.map((row) => [...(row[i] as string)].length)));
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const [first = '', ...others] = all.map((row) =>
    line(
      row.map((cell, i) => {
        const space = ' '.repeat((widths[i] as number) - [...cell].length);
        return right.includes(i) ? space + cell : cell + space;
      }),
    ),
  );
  const rule = line(widths.map((width, i) => (right.includes(i) ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width))));
  return [first, rule, ...others];
}

/** A median with its smallest and largest: 224 (219 to 240). */
export const spread = (middle: number, [from, to]: Range): string => `${figure(middle)} (${figure(from)} to ${figure(to)})`;

/** What is not there is a dash. */
export const shown = (x: number | null | undefined, unit = ''): string => (x === null || x === undefined ? '-' : `${figure(x)}${unit}`);

export const percent = (share: number | null | undefined): string =>
  share === null || share === undefined ? '-' : `${figure(100 * share)} %`;

export const gibibytes = (bytes: number | null | undefined): string => (bytes ? `${figure(bytes / 2 ** 30)} GiB` : '-');
