/** What the last build leaves behind, so that the next one knows whether there is anything to do. */

/** How an executable was trained; each way also serves where an earlier one is wanted. */
const trainings = ['untrained', 'trained', 'reproducible'] as const;
export type Training = (typeof trainings)[number];

/** The stamp of an executable. @param digest of what it was made of. */
export function stampOf(digest: string, training: Training): string {
  return `${digest} ${training}`;
}

/**
 * True if the last build need not be repeated.
 * @param previous its stamp, "" when there is none.
 * @param wanted how the next one would be trained.
 */
export function isCurrent(previous: string, digest: string, wanted: Training): boolean {
  return trainings
    .slice(trainings.indexOf(wanted))
    .some((training) => previous === stampOf(digest, training));
}
