//! Why a table of seen requests cannot be used.

use std::fmt;

/// What is wrong with a table of seen requests, or with what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayTableFault {
    /// A table for so many ids was asked for, none or more than one can have.
    Capacity {
        /// The capacity that was asked for.
        asked: usize,
        /// The largest capacity.
        limit: usize,
    },
    /// An id has a length that no id has.
    IdLength {
        /// Its length in bytes.
        length: usize,
        /// The shortest length.
        shortest: usize,
        /// The longest length.
        longest: usize,
    },
    /// The table holds as many ids as it can.
    Full,
    /// The file behind the table was resized or overwritten: nobody knows any more what was seen.
    Lost,
    /// The file is no table, or is of another version.
    NotATable,
    /// A table is made in an empty file only, and this one has so many bytes.
    NotEmpty(u64),
    /// The system refused the file's memory, with this error number.
    Refused(i32),
    /// This system cannot share a table among processes.
    NotShareable,
}

impl fmt::Display for ReplayTableFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capacity { asked, limit } => write!(f, "a replay table holds 1 to {limit} ids, not {asked}"),
            Self::IdLength { length, shortest, longest } => {
                write!(f, "the id of a request has {shortest} to {longest} bytes, not {length}")
            }
            Self::Full => f.write_str("the replay table is full: replace the key pair that it is for"),
            Self::Lost => f.write_str(
                "the file of the replay table was resized or overwritten: accept nothing any more that is sealed to the \
                 key pair that it is for",
            ),
            Self::NotATable => f.write_str("the file is no replay table, or one of another version"),
            Self::NotEmpty(length) => write!(f, "a replay table is made in an empty file, not in one of {length} bytes"),
            Self::Refused(number) => {
                let why = std::io::Error::from_raw_os_error(*number);
                write!(f, "the system refused the replay table its memory: {why}")
            }
            Self::NotShareable => f.write_str("this system cannot share a replay table among processes"),
        }
    }
}
