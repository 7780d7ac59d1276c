/** Numbers, times and tables as people read them. */
import type { Broken } from '../data/folder.js';

/** 25000 -> 25,000. */
export const count = (n: number): string => n.toLocaleString('en-GB');

/** A line for a terminal: names of classes and files may hold any character, and those that would move the cursor or colour it are shown as a mark. */
export const plain = (line: string): string => line.replaceAll(/\p{Cc}/gu, '\ufffd');

/** What is said of a broken picture that is left out. */
export const skipped = ({ path, reason, replacedBy }: Broken): string => `skipped ${path}: ${reason}; ${replacedBy} stands in`;

/** A count with its noun: '1 picture', '2 pictures'. */
export const counted = (n: number, noun: string, plural = `${noun}s`): string => `${count(n)} ${n === 1 ? noun : plural}`;

/** Three significant digits or so: 0.0123, 1.23, 12.3, 123, 12,345; 'none' for what is not a number. */
export function figure(x: number): string {
  if (!Number.isFinite(x)) return Number.isNaN(x) ? 'none' : x > 0 ? 'infinite' : '-infinite';
  const size = Math.abs(x);
  if (size >= 99.95) return count(Math.round(x));
  if (size >= 9.995) return x.toFixed(1);
  if (size >= 0.9995 || size === 0) return x.toFixed(2);
  return size >= 0.0009995 ? x.toFixed(size >= 0.09995 ? 3 : 4) : x.toExponential(1);
}

/** 204700000 -> 204.7M, or with a space before the letter, which a unit may follow: 204.7 MB. */
export function short(n: number, space = ''): string {
  const units: readonly (readonly [number, string])[] = [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ];
  for (const [unit, letter] of units) if (n >= unit * 0.99995) return `${(n / unit).toFixed(1)}${space}${letter}`;
  return `${Math.round(n)}${space}`;
}

/** Seconds as 0:07, 3:25, 1:02:09, or '2 d 3 h' when it takes days. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return '?';
  const s = Math.max(0, Math.round(seconds));
  const two = (n: number): string => String(n).padStart(2, '0');
  if (s >= 2 * 86400) return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
  const minutes = Math.floor(s / 60) % 60;
  return s >= 3600 ? `${Math.floor(s / 3600)}:${two(minutes)}:${two(s % 60)}` : `${minutes}:${two(s % 60)}`;
}

/** Decibels with their unit. */
export const decibels = (x: number): string => (Number.isFinite(x) ? `${x.toFixed(2)} dB` : figure(x));

/** Lines of columns, two spaces apart. Columns of `right` (numbers) end flush. */
export function table(rows: readonly (readonly string[])[], right: readonly number[] = []): string[] {
  const widths = rows.reduce<number[]>((most, row) => row.map((cell, i) => Math.max(most[i] ?? 0, width(cell))), []);
  return rows.map((row) =>
    row
      .map((cell, i) => {
        const space = ' '.repeat((widths[i] ?? 0) - width(cell));
        return right.includes(i) ? space + cell : cell + space;
      })
      .join('  ')
      .trimEnd(),
  );
}

/** Columns that a text takes: characters, not UTF-16 units. */
const width = (text: string): number => [...text].length;

/** Words of a text in lines of at most `columns`. */
export function wrap(text: string, columns: number): string[] {
  const lines: string[] = [];
  for (const word of text.split(/\s+/)) {
    const last = lines.at(-1);
    if (last === undefined || width(last) + 1 + width(word) > columns) lines.push(word);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}
