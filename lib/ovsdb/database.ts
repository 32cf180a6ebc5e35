/**
 * A connection to the database of Open vSwitch. Source: RFC 7047; the tables are those of
 * ovs-vswitchd.conf.db(5).
 */

import type { Socket } from 'node:net';
import { CniError, ErrorCode } from '../errors.ts';
import { isObject } from '../object.ts';
import { connectTo, parseAddress } from './address.ts';
import { JsonStream } from './json-stream.ts';
import type { Row } from './values.ts';

const database = 'Open_vSwitch';
/** How long to wait for one answer, in milliseconds. */
const longestAnswer = 5000;

/** An operation of a transaction. Source: RFC 7047, section 5.2. */
export type Operation = Readonly<Record<string, unknown>> & { readonly op: string };

/** A condition on a column. Source: RFC 7047, section 5.1. */
export type Condition = readonly [column: string, compare: string, value: unknown];

/** The database cannot be reached: nobody listens where it should be. */
export class OvsdbAbsentError extends CniError {
  override readonly name = 'OvsdbAbsentError';
}

interface Message {
  id?: unknown;
  method?: unknown;
  params?: unknown;
  result?: unknown;
  error?: unknown;
}

/** An open connection. */
export class OvsdbConnection implements Disposable {
  private readonly socket: Socket;
  private readonly address: string;
  private readonly answers = new Map<number, (message: Message | Error) => void>();
  private nextId = 1;
  private failure: Error | undefined;

  private constructor(socket: Socket, address: string) {
    this.socket = socket;
    this.address = address;
    const stream = new JsonStream();
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      try {
        for (const message of stream.push(text)) this.receive(message as Message);
      } catch (error) {
        this.fail(this.problem('does not answer as a database server', (error as Error).message));
      }
    });
    socket.on('error', (error) => this.fail(this.problem('was lost', error.message)));
    socket.on('close', () => this.fail(this.problem('was lost', 'the server closed the connection')));
  }

  /**
   * Connects.
   * @param address as in "socket_file".
   * @throws OvsdbAbsentError when nobody listens there; CniError TryAgainLater when it takes too long, and
   *   Internal when this process may not connect, or has too many open files; Error for an address that makes
   *   no sense.
   */
  static async open(address: string): Promise<OvsdbConnection> {
    const target = parseAddress(address);
    let socket: Socket | undefined;
    try {
      const connecting = connectTo(target);
      ({ socket } = connecting);
      await opening(socket, connecting.ready);
      return new OvsdbConnection(socket, address);
    } catch (error) {
      socket?.removeAllListeners().on('error', () => {});
      socket?.destroy();
      if (error instanceof CniError) throw error;
      const { message, code } = error as NodeJS.ErrnoException;
      if (code === 'EACCES' || code === 'EPERM')
        throw new CniError(
          ErrorCode.Internal,
          `Permission to connect to the database of Open vSwitch at "${address}" is denied. Let this process use that socket, or correct "socket_file"`,
          message,
        );
      if (['EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS'].includes(code ?? ''))
        throw new CniError(
          ErrorCode.Internal,
          `Cannot connect to the database of Open vSwitch at "${address}", as this process has too many open files, or the host too little memory. Raise its limit, or free memory`,
          message,
        );
      const isAbsent = ['ENOENT', 'ECONNREFUSED'].includes(code ?? '');
      const Kind = isAbsent ? OvsdbAbsentError : CniError;
      const isSecure = 'isSecure' in target && target.isSecure;
      const keys = isSecure ? ', or its keys in "/etc/openvswitch"' : '';
      throw new Kind(
        ErrorCode.TryAgainLater,
        `Cannot connect to the database of Open vSwitch at "${address}". Start the service "openvswitch-switch", or correct "socket_file"${keys}`,
        message,
      );
    }
  }

  /**
   * Carries out operations, all or none.
   * @param what the operations do, in words that may follow "refused to", for messages.
   * @returns the result of each.
   * @throws CniError with what the database said.
   */
  async transact(what: string, operations: readonly Operation[]): Promise<OperationResult[]> {
    const list = resultsOf(await this.call(what, 'transact', [database, ...operations]));
    const failed = list.find(({ error }) => error !== undefined);
    if (!failed && list.length >= operations.length) return list;
    throw new CniError(
      failed?.error === 'timed out' ? ErrorCode.TryAgainLater : ErrorCode.Internal,
      `The database of Open vSwitch at "${this.address}" refused to ${what}. Look at it with "ovs-vsctl show", and for errors in the log of ovsdb-server`,
      failed ? `${failed.error}${failed.details ? `: ${failed.details}` : ''}` : 'its answer lacks results',
    );
  }

  /** Reads rows. */
  async select(table: string, where: readonly Condition[], columns: readonly string[]): Promise<Row[]> {
    const [result] = await this.transact(`read table "${table}"`, [{ op: 'select', table, where, columns }]);
    return result?.rows ?? [];
  }

  /**
   * Waits until a row's columns have, or no longer have, certain values. The database reports when they do.
   * @param timeoutMs after how long it gives up.
   * @returns false when it gave up.
   */
  async waitFor(
    table: string,
    where: readonly Condition[],
    until: '==' | '!=',
    row: Row,
    timeoutMs: number,
  ): Promise<boolean> {
    const wait = {
      op: 'wait',
      timeout: timeoutMs,
      table,
      where,
      columns: Object.keys(row),
      until,
      rows: [row],
    };
    const what = `watch table "${table}"`;
    const [result] = resultsOf(await this.call(what, 'transact', [database, wait], timeoutMs));
    return result?.error !== 'timed out';
  }

  [Symbol.dispose](): void {
    this.socket.removeAllListeners().on('error', () => {});
    this.socket.destroy();
  }

  /** @param moreMs how much longer than usual the answer may take. */
  private async call(what: string, method: string, params: readonly unknown[], moreMs = 0): Promise<unknown> {
    if (this.failure) throw this.failure;
    const id = this.nextId++;
    const { promise, resolve, reject } = Promise.withResolvers<Message>();
    this.answers.set(id, (message) => (message instanceof Error ? reject(message) : resolve(message)));
    const limit = setTimeout(() => {
      reject(
        this.problem('is too slow', `it did not ${what} within ${(longestAnswer + moreMs) / 1000} seconds`),
      );
    }, longestAnswer + moreMs);
    try {
      this.socket.write(JSON.stringify({ id, method, params }));
      const { result, error } = await promise;
      if (error) throw this.problem('refused a request', `to ${what}: ${JSON.stringify(error)}`);
      return result;
    } finally {
      clearTimeout(limit);
      this.answers.delete(id);
    }
  }

  private receive(message: Message): void {
    const { id, method, params } = message;
    // The server closes connections whose other side does not answer these.
    if (method === 'echo') this.socket.write(JSON.stringify({ id, result: params, error: null }));
    else if (typeof id === 'number') this.answers.get(id)?.(message);
  }

  private fail(error: Error): void {
    this.failure ??= error;
    for (const answer of [...this.answers.values()]) answer(this.failure);
  }

  private problem(what: string, details: string): CniError {
    return new CniError(
      ErrorCode.TryAgainLater,
      `The connection to the database of Open vSwitch at "${this.address}" ${what}. Look at it with "ovs-vsctl show", and try again`,
      details,
    );
  }
}

/**
 * Reads the results of operations. A result that makes no sense counts as empty, as do those after a failure.
 */
function resultsOf(answer: unknown): OperationResult[] {
  const textOf = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));
  return (Array.isArray(answer) ? (answer as readonly unknown[]) : []).map((one) => {
    const { error, details, rows } = isObject(one) ? one : {};
    return {
      ...(error !== undefined && { error: textOf(error) }),
      ...(details !== undefined && { details: textOf(details) }),
      ...(Array.isArray(rows) && { rows: rows.filter(isObject) as Row[] }),
    };
  });
}

/** What the database says about an operation. */
export interface OperationResult {
  readonly error?: string;
  readonly details?: string;
  readonly rows?: Row[];
}

/** Waits until a socket is connected. @throws the error of connect(2) or TLS, or that it takes too long. */
async function opening(socket: Socket, ready: 'connect' | 'secureConnect'): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.once(ready, resolve);
    socket.setTimeout(longestAnswer, () => reject(new Error('nobody answered in time')));
  });
  socket.removeAllListeners();
  socket.setTimeout(0);
}
