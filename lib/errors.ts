/**
 * Errors as the CNI specification carries them: a code, a message a person can act on, and details.
 */

/** Error codes of the CNI specification 1.1.0, section "Error", and those the reference library adds. */
export const ErrorCode = {
  IncompatibleVersion: 1,
  UnsupportedField: 2,
  UnknownContainer: 3,
  InvalidEnvironment: 4,
  IOFailure: 5,
  DecodingFailure: 6,
  InvalidNetworkConfig: 7,
  /**
   * Not in the specification's table; the reference library uses it when CNI_NETNS is the plugin's own
   * namespace.
   */
  InvalidNetns: 8,
  TryAgainLater: 11,
  /** STATUS: the plugin cannot serve ADD. */
  NotAvailable: 50,
  /** STATUS: the plugin cannot serve ADD, and existing attachments may be degraded. */
  LimitedConnectivity: 51,
  /** Anything the specification has no code for. */
  Internal: 999,
} as const;

/** What a plugin reports to the runtime in place of a result. */
export class CniError extends Error {
  readonly code: number;
  readonly details: string | undefined;

  /**
   * @param code One of {@link ErrorCode}.
   * @param message Says the current and the wanted state, and how to get there.
   * @param details What was tried, and what the kernel or a tool said.
   */
  constructor(code: number, message: string, details?: string) {
    super(message);
    this.name = 'CniError';
    this.code = code;
    this.details = details;
  }
}
