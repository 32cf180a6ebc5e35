/** What the last build leaves behind, so that the next one knows whether there is anything to do. */

const untrained = ' untrained';

/**
 * The stamp of an executable.
 * @param digest of what it was made of.
 * @param trained false when it lacks bytecode.
 */
export function stampOf(digest: string, trained: boolean): string {
  return trained ? digest : digest + untrained;
}

/**
 * True if the last build need not be repeated.
 * @param previous its stamp, "" when there is none.
 * @param canTrain whether an executable that was not trained can be this time.
 */
export function isCurrent(previous: string, digest: string, canTrain: boolean): boolean {
  return previous === stampOf(digest, true) || (!canTrain && previous === stampOf(digest, false));
}
