// The errors that callers may want to tell apart.

class NamedError extends Error {
  get name() {
    return this.constructor.name;
  }
}

// The server published no key that can be used, or none that the caller's options or the request ask for. status and headers
// are those of the answer that came in place of a key, or null: after a 503, Retry-After may tell when to come back.
export class KeyConfigurationError extends NamedError {
  constructor(message, { status = null, headers = null, ...options } = {}) {
    super(message, options);
    this.status = status;
    this.headers = headers;
  }
}

// The key answer is not signed by the server's identity, or not for this time.
export class KeyRejectedError extends NamedError {}

// The answer to a sealed request is not sealed. Anybody between client and server may have written it, and its headers, of
// which Retry-After may tell when to come back.
export class UnsealedResponseError extends NamedError {
  constructor(status, text, headers = new Headers()) {
    super(`The answer ${status} was not sealed, so anybody on the way may have written it: ${text.slice(0, 300)}`);
    this.status = status;
    this.headers = headers;
  }
}

// The response arrived with another status than the server has sealed. Something on the way has changed it.
export class StatusMismatchError extends NamedError {
  constructor(sealed, arrived) {
    super(`The server sealed a response with status ${sealed}, but it arrived with status ${arrived}: something on the way has changed it`);
    this.status = sealed;
  }
}

// The response ended before its end: it was cut.
export class MissingEndError extends NamedError {}
