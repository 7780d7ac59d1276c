/** Finding things by the names that users type. */
import { nearest, UsageError } from '../core/errors.js';

/**
 * The value of this name.
 * @param what it is called, as 'case' or 'preset of this study'
 * @throws UsageError naming the known ones and the nearest
 */
export function findNamed<T>(what: string, table: Readonly<Record<string, T>>, name: string): T {
  const found = Object.entries(table).find(([known]) => known === name);
  if (found) return found[1];
  const known = Object.keys(table);
  const guess = nearest(name, known);
  throw new UsageError(`there is no ${what} '${name}'${guess ? `; did you mean '${guess}'?` : '.'} Known: ${known.join(', ')}`);
}

/** Those of a study's cases with these names, in the study's order. @throws UsageError naming the unknown one and the nearest */
export function findCases<C extends { readonly name: string }>(cases: readonly C[], names: readonly string[]): readonly C[] {
  const table = Object.fromEntries(cases.map((each) => [each.name, each]));
  const found = new Set(names.map((name) => findNamed('case', table, name)));
  return cases.filter((each) => found.has(each));
}
