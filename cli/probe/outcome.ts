/** The results of a probe. */

/** One thing that was tried. */
export interface Outcome {
  /** Who sent the packets. */
  readonly from: string;
  /** What was tried, such as "gateway". */
  readonly probe: string;
  readonly to: string;
  readonly state: 'ok' | 'failed' | 'untried';
  /** How long it took, what went wrong, or why it was not tried. */
  readonly detail: string;
}
