/**
 * Signs of life for systemd, which ends a service that stops sending them, and starts it again. Sources:
 * sd_notify(3), sd_watchdog_enabled(3).
 */

import { sendDatagram } from '../lib/kernel/unix-socket.ts';

/**
 * Sends a sign of life now and twice in each period in which systemd expects one, as long as the event loop
 * runs.
 * @param environment in which systemd tells whether it wants them, how often and where.
 * @param warn told of each that could not be sent.
 * @returns what ends it; undefined when nobody expects signs of life from this process.
 */
export function startWatchdog(
  environment: Readonly<Record<string, string | undefined>>,
  warn: (message: string) => void,
): Disposable | undefined {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: period, WATCHDOG_PID: pid } = environment;
  const intervalMs = Number(period) / 1000 / 2;
  if (!socket || !(intervalMs > 0) || (pid && pid !== `${process.pid}`)) return undefined;
  const send = () => {
    try {
      sendDatagram(`tell systemd at "${socket}" that the agent is alive`, socket, Buffer.from('WATCHDOG=1'));
    } catch (error) {
      warn((error as Error).message);
    }
  };
  send();
  const timer = setInterval(send, intervalMs).unref();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
