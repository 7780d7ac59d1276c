/** The text of `dsd --help` and of each command's. */
import { valueName } from './args.js';
import { COMMON, type Command } from './command.js';
import { table, wrap } from './text.js';

const INDENT = '  ';
/** Help is as wide as the terminal, and no wider than reads well. */
const MOST_COLUMNS = 110;

/**
 * Help of the whole program.
 * @param commands name and a line about each, in the order of use
 * @param program what to type to start this one: examples are there to be pasted
 */
export function programHelp(commands: readonly (readonly [name: string, about: string])[], program = 'dsd'): string {
  return [
    'dsd: train one Vision Transformer that encodes, decodes and generates pictures (Diffusion as Self-Distillation)',
    '',
    `${program} COMMAND [FLAGS]`,
    '',
    ...table(commands.map(([name, about]) => [INDENT + name, about])),
    '',
    'Start here',
    ...table([
      [`${INDENT}${program} doctor`, 'is everything there, and how fast is it?'],
      [`${INDENT}${program} train --preset demo`, 'a few minutes on a CPU'],
      [`${INDENT}${program} sample runs/demo`, 'pictures from what was trained'],
    ]),
    '',
    `\`${program} COMMAND --help\` lists the flags. Results go to stdout, progress to stderr.`,
    'Exit codes: 0 done, 1 failed, 2 wrong usage, 75 interrupted with the weights saved, if there were any yet.',
    '',
  ].join('\n');
}

/** Help of a command. @param columns of the terminal @param program as of programHelp */
export async function commandHelp(command: Command, columns = 80, program = 'dsd'): Promise<string> {
  const wide = Math.max(40, Math.min(columns, MOST_COLUMNS));
  const rows = [...Object.entries(command.flags)].map(([name, flag]) => {
    const value = valueName(flag);
    return {
      left: `${INDENT}--${name}${value && ` ${value}`}`,
      about: flag.about + (flag.repeat ? ' (may be repeated)' : ''),
      common: name in COMMON,
    };
  });
  rows.sort((a, b) => Number(a.common) - Number(b.common));
  const sections = (await command.sections?.()) ?? [];
  const { names } = command.operands;
  return [
    ...wrap(command.about, wide),
    '',
    `${program} ${command.name}${names && ` ${names}`} [FLAGS]`,
    '',
    ...hanging(
      rows.map(({ left, about }) => [left, about] as const),
      wide,
    ),
    ...sections.flatMap(({ heading, lines }) => ['', heading, ...lines]),
    '',
    command.examples.length === 1 ? 'Example' : 'Examples',
    ...command.examples.flatMap(([line, about]) => [
      INDENT + line.replace(/^dsd\b/, program),
      ...(about === '' ? [] : wrap(about, wide - 6)).map((part) => `      ${part}`),
    ]),
    '',
  ].join('\n');
}

/** Two columns, the right one wrapped; a left cell that is too wide has its line for itself. */
export function hanging(rows: readonly (readonly [left: string, right: string])[], columns: number): string[] {
  const left = Math.min(Math.max(...rows.map(([cell]) => cell.length)), 30);
  return rows.flatMap(([cell, text]) => {
    const lines = wrap(text, Math.max(20, columns - left - 2));
    const first = cell.length > left ? [cell] : [];
    return [...first, ...lines.map((line, i) => `${(i === 0 && first.length === 0 ? cell : '').padEnd(left)}  ${line}`)];
  });
}
