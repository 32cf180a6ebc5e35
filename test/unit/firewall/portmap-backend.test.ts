import test from 'ava';
import { takenError } from '../../../lib/firewall/portmap-backend.ts';

test('a port that is taken is said to be by whom, on which network as far as that is known', (t) => {
  const mapping = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
  const message = (network?: string) =>
    takenError(mapping, { containerId: 'one', network }, '10.1.0.5:80').message;
  t.regex(
    message('net'),
    /^Port 8080\/tcp of the host is taken by container "one" on network "net", where it /,
  );
  t.regex(
    message(),
    /^Port 8080\/tcp of the host is taken by container "one", where it leads to 10\.1\.0\.5:80\./,
  );
});
