/** What a soak has seen. */

/** Violations beyond this many are only counted. */
const mostShown = 50;

/** Counts what happens, and notes what must not. */
export class Findings {
  /** What must not have happened, in words. */
  readonly violations: string[] = [];
  private readonly counts = new Map<string, number>();

  /** Counts something that may happen. */
  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  /** How often something has happened. */
  countOf(what: string): number {
    return this.counts.get(what) ?? 0;
  }

  /** Notes something that must not happen, and says so at once. */
  violation(text: string): void {
    this.violations.push(text);
    if (this.violations.length <= mostShown) console.log(`VIOLATION: ${text}`);
  }

  /** Everything that was counted, as "12 × what". */
  summary(): string {
    return [...this.counts]
      .toSorted(([, a], [, b]) => b - a)
      .map(([what, count]) => `${count.toLocaleString('en')} × ${what}`)
      .join('\n');
  }
}
