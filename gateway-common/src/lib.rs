//! The translation shared by the kernel program and the tools: table layout, header parser, rewriter.

#![no_std]
