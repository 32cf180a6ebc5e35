/**
 * Errors as the CNI specification carries them: a code, a message a person can act on, and details.
 */

/**
 * Error codes of the CNI specification 1.1.0, section "Error", and those the reference library adds. They
 * tell whose fault it is, and whether to call again:
 * - 1, 2, 4, 6, 7 and 8 blame what the plugin was given, so they are for nothing else. What only the plugin
 *   itself checks in its configuration has 999, as with the reference plugins.
 * - 3 tells a runtime that there is nothing to clean up: never where anything may be left.
 * - 5 is for standard input and output, and for the files that plugins read, write or lock, also when
 *   something else is in their place.
 * - 11 is for what passes by itself: somebody holds a lock, or a server is away.
 * - 50 and 51 are answers to STATUS.
 * - 999 is for all that the kernel, or a program of the host, refuses.
 *
 * libcni, containerd and CRI-O ignore the codes: after an error of ADD, the runtime deletes the sandbox and
 * tries again, after one of DEL it calls DEL again, and one of STATUS takes the node out of service.
 * containerd goes by the text: it regards DEL as successful if that contains "not found" or, without a
 * sandbox, "no such file or directory".
 */
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
   * @param options The error that caused this one, for callers that go by it.
   */
  constructor(code: number, message: string, details?: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'CniError';
    this.code = code;
    this.details = details;
  }
}
